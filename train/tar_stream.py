"""Webdataset tars read once from front to back, from a disk, a URL or a command.

What cannot be read any further is a `BadRow` in the place of the rest.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

from braceexpand import braceexpand
from webdataset.gopen import gopen, gopen_schemes, set_options

from train.source_files import KEY, BadRow, Row, find_files
from train.tar_members import is_read, split_member

NUM_NAMED = 3  # of the tars that are missing


def expand_tars(patterns: tuple[str, ...]) -> list[str]:
    """Paths and URLs of tars from brace ranges and, for local ones, wildcards.

    Raises FileNotFoundError for local tars that are not there, ValueError for an unknown scheme.
    """
    names = [name for pattern in patterns for name in braceexpand(pattern)]
    tars = [tar for name in names for tar in _matches(name)]
    local = [tar for tar in tars if not urlparse(tar).scheme]
    if missing := [tar for tar in local if not Path(tar).is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(tars)} tars are not there, such as "
            f"{', '.join(missing[:NUM_NAMED])}; check `urls`"
        )
    return tars


def read_tar(url: str) -> Iterator[Row | BadRow]:
    """The samples of a tar in their order, with the bytes of their files by suffix.

    A tar that is damaged, cut off or cannot be reached ends with a `BadRow`, as does an empty one.
    """
    is_empty = True
    try:
        with _opened(url) as file:
            for row in _read_samples(file):
                is_empty = False
                yield row
    except (OSError, tarfile.TarError) as error:
        yield BadRow(f"the tar cannot be read, or not to its end ({error})", url)
    else:
        if is_empty:
            yield BadRow("the tar holds no samples", url)


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    file = gopen(url)
    try:
        yield file
    except GeneratorExit:  # nobody wants the rest; a command that is cut short fails
        set_options(file, ignore_errors=True)
        raise
    finally:
        file.close()


def _matches(name: str) -> list[str]:
    scheme = urlparse(name).scheme
    if not scheme:
        return [str(path) for path in find_files(name)] if "*" in name else [name]
    known = [known for known in gopen_schemes if not known.startswith("_")]
    if scheme not in (*known, "file"):
        raise ValueError(
            f"tars cannot be read from {scheme} URLs ({name}); expected a path, a URL of "
            f"{', '.join(known)}, or a command, such as 'pipe:aws s3 cp {name} -'"
        )
    return [name]


class _Watched:
    """A file that remembers what was read from it last.

    tarfile takes any header but the first that it cannot read for the end of the tar. Only what
    stands there tells an end from damage.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self._recent = b""

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._position += len(content)
        self._recent = (self._recent + content)[-2 * tarfile.RECORDSIZE :]
        return content

    def block_at(self, position: int) -> bytes:
        start = position - self._position + len(self._recent)
        return self._recent[start : start + tarfile.BLOCKSIZE]


def _read_samples(file: BinaryIO) -> Iterator[Row]:
    watched: Any = _Watched(file)  # tarfile asks a stream for `read` alone
    row: dict[str, Any] = {}
    with tarfile.open(fileobj=watched, mode="r|") as tar:
        while (member := tar.next()) is not None:
            key, suffix = split_member(member)
            if key and row.get(KEY) != key:
                if row:
                    yield row
                row = {KEY: key}
            if key and is_read(suffix):
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                row[suffix] = content.read()
            tar.members.clear()  # type: ignore[attr-defined]  # or a long tar fills the memory
        if row:
            yield row
        is_whole = watched.block_at(tar.offset) == bytes(tarfile.BLOCKSIZE)
    while file.read(tarfile.RECORDSIZE):  # a command that cannot write all it has would fail
        pass
    if not is_whole:
        raise tarfile.ReadError("damaged or cut off behind its last readable file")
