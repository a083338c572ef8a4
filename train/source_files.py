"""Rows of raw training data by their number, whatever kind of file holds them.

A table knows its length and gives any range of rows without reading the rest, so that the work on
it can be shared between processes and taken up again. A row that cannot be read is a `BadRow` in
its place: the rows behind it keep their numbers.
"""

import bisect
import glob
import json
import os
import tarfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from train.tar_members import is_read, split_member
from unitok.files import atomic_write, read_json

ROWS_AT_A_TIME = 64  # rows with pictures in them are large
KEY = "__key__"  # column of a tar's samples: their common name

Row = Mapping[str, Any]


@dataclass(frozen=True)
class BadRow:
    """In the place of a row that cannot be read."""

    reason: str
    name: str | None = None


class Table(Protocol):
    """Rows 0 to len - 1."""

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Their names; None where every row has its own."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[Row | BadRow]:
        """The rows `start` to `stop - 1`, read as they are asked for."""


class Chain:
    """Tables one behind the other."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables
        self.columns = tables[0].columns
        self._starts = list(accumulate((len(table) for table in tables), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, start: int, stop: int) -> Iterator[Row | BadRow]:
        number = bisect.bisect_right(self._starts, start) - 1
        while start < stop:
            first, end = self._starts[number : number + 2]
            yield from self.tables[number].read(start - first, min(stop, end) - first)
            start, number = max(start, end), number + 1


class Lines:
    """A text file: each line that is not blank is a row, plain text or a JSON object."""

    columns = None

    def __init__(self, path: Path, *, is_json: bool) -> None:
        self.path = path
        self.is_json = is_json
        self._starts = array("q")
        with path.open("rb") as file:
            start = 0
            for line in file:
                if line.strip():
                    self._starts.append(start)
                start += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, start: int, stop: int) -> Iterator[Row | BadRow]:
        with self.path.open("rb") as file:
            for number in range(start, stop):
                file.seek(self._starts[number])
                yield self._parse(file.readline())

    def _parse(self, line: bytes) -> Row | BadRow:
        try:
            text = line.decode("utf-8-sig").strip()
            return _as_row(json.loads(text)) if self.is_json else {"text": text}
        except UnicodeDecodeError:
            return BadRow("the line is no UTF-8 text")
        except (ValueError, RecursionError) as error:
            return BadRow(f"the line is no JSON ({error})")


class JsonList:
    """A JSON file that holds a list of objects."""

    columns = None

    def __init__(self, path: Path) -> None:
        try:
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON file ({error}); save it again") from error
        self._rows: list[Any] = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int, stop: int) -> Iterator[Row | BadRow]:
        yield from map(_as_row, self._rows[start:stop])


class ParquetRows:
    """A Parquet file; only the row groups that are asked for are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
                self.columns = tuple(file.schema_arrow.names)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is no Parquet file ({error}); copy it again") from error
        self._starts = list(accumulate(sizes, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, start: int, stop: int) -> Iterator[Row | BadRow]:
        first = bisect.bisect_right(self._starts, start) - 1
        groups = range(first, bisect.bisect_left(self._starts, stop))
        position = self._starts[first]
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME, row_groups=list(groups)):
                part = batch.slice(max(0, start - position), stop - max(start, position))
                position += len(batch)
                if len(part):
                    yield from part.to_pylist()
                if position >= stop:
                    return


class DatasetRows:
    """A table of the `datasets` library; pictures stay as they are stored, not decoded."""

    def __init__(self, dataset: datasets.Dataset) -> None:
        for name, feature in dataset.features.items():
            if isinstance(feature, datasets.Image):
                dataset = dataset.cast_column(name, datasets.Image(decode=False))
        self._dataset = dataset.with_format(None)
        self.columns = tuple(dataset.column_names)

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, start: int, stop: int) -> Iterator[Row | BadRow]:
        for first in range(start, stop, ROWS_AT_A_TIME):
            values = self._dataset[first : min(stop, first + ROWS_AT_A_TIME)]
            for row in zip(*values.values(), strict=True):
                yield dict(zip(values, row, strict=True))


class TarSamples:
    """A webdataset tar: files that share a name up to its first dot are one row.

    Where each file begins is kept in a JSON file beside the results, so that a tar is walked
    through once and not by every process.
    """

    columns = None

    def __init__(self, path: Path, index_file: Path) -> None:
        self.path = path
        self.index_file = index_file
        stat = path.stat()
        self._modified = stat.st_mtime_ns
        if not self._is_indexed():
            samples, damage = _walk_tar(path)
            found = {"samples": samples, "damage": damage}
            state = {"size": stat.st_size, "modified": stat.st_mtime_ns}
            with atomic_write(index_file) as temporary:
                temporary.write_text(json.dumps({**state, **found}))
        index = _read_index(index_file, self._modified)
        self._length = len(index["samples"]) + (index["damage"] is not None)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> Iterator[Row | BadRow]:
        index = _read_index(self.index_file, self._modified)
        with self.path.open("rb") as file:
            for key, members in index["samples"][start:stop]:
                row: dict[str, Any] = {KEY: key}
                for suffix, (offset, size) in members.items():
                    file.seek(offset)
                    row[suffix] = file.read(size)
                yield row
        if index["damage"] is not None and stop == len(self):
            yield BadRow(index["damage"], self.path.name)

    def _is_indexed(self) -> bool:
        index = read_json(self.index_file) if self.index_file.is_file() else {}
        stat = self.path.stat()
        return (index.get("size"), index.get("modified")) == (stat.st_size, stat.st_mtime_ns)


def open_table(path: str, *, split: str = "train", subset: str | None = None) -> Table:
    """Files, a folder of `save_to_disk`, or a hub name; `split` and `subset` are for the two last.

    `path` may be a pattern such as `data/*.parquet`; files follow each other in order of name.
    """
    if _is_hub_name(path):
        return DatasetRows(datasets.load_dataset(path, subset, split=split))
    tables = [_open_file(file, split) for file in find_files(path)]
    return tables[0] if len(tables) == 1 else Chain(tables)


def open_tars(
    path: str, *, index_folder: Path, first: float = 0.0, limit: int | None = None
) -> Table:
    """The tars of a pattern, or as many of them as hold `limit` samples.

    `first` (0 to 1) says where among them to begin making indices: processes that begin at
    different places find what the others have done already.
    """
    files = find_files(path)
    if unsuitable := [file for file in files if file.suffix != ".tar" or not file.is_file()]:
        raise ValueError(f"{unsuitable[0]} is no .tar file; name tars, such as data/*.tar")
    index_folder.mkdir(parents=True, exist_ok=True)
    start = 0 if limit else int(first * len(files))
    tars: dict[int, TarSamples] = {}
    for number in (*range(start, len(files)), *range(start)):
        if limit and sum(len(tar) for tar in tars.values()) >= limit:
            break
        tars[number] = TarSamples(files[number], index_folder / f"{number:06d}.json")
    return Chain([tars[number] for number in sorted(tars)])


def find_files(path: str) -> list[Path]:
    """What a path or a pattern names, sorted."""
    if Path(path).exists():
        return [Path(path)]
    if files := sorted(glob.glob(path, recursive=True)):
        return [Path(file) for file in files]
    raise FileNotFoundError(f"no file matches {path}; check the path, patterns are like data/*.tar")


def _is_hub_name(path: str) -> bool:
    """Whether `path` can only be OWNER/NAME on the hub."""
    parts = path.split("/")
    is_plain = len(parts) == 2 and all(parts) and not glob.has_magic(path)
    is_file = Path(path).exists() or Path(path).suffix in _OPENERS or parts[0] in (".", "..", "~")
    return is_plain and not is_file


def _open_file(path: Path, split: str) -> Table:
    if path.is_dir():
        return DatasetRows(_load_folder(path, split))
    if path.suffix not in _OPENERS:
        raise ValueError(f"{path} has no suffix of a table; expected {', '.join(_OPENERS)}")
    return _OPENERS[path.suffix](path)


def _load_folder(path: Path, split: str) -> datasets.Dataset:
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise ValueError(
            f"{path} is a folder, but not one that save_to_disk wrote; name the files in it by a "
            f"pattern, such as {path / '*.parquet'}"
        )
    found = datasets.load_from_disk(os.fspath(path))
    if isinstance(found, datasets.DatasetDict) and split not in found:
        raise ValueError(f"{path} has the splits {', '.join(found)}, got split {split!r}")
    return found[split] if isinstance(found, datasets.DatasetDict) else found


def _open_json(path: Path) -> Table:
    """A list, or an object a line: files of both kinds carry both suffixes."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    return JsonList(path) if start.startswith(b"[") else Lines(path, is_json=True)


_OPENERS: dict[str, Callable[[Path], Table]] = {
    ".json": _open_json,
    ".jsonl": _open_json,
    ".parquet": ParquetRows,
    ".arrow": lambda path: DatasetRows(datasets.Dataset.from_file(os.fspath(path))),
    ".txt": lambda path: Lines(path, is_json=False),
}


def _as_row(value: Any) -> Row | BadRow:
    is_row = isinstance(value, dict)
    return value if is_row else BadRow(f"a JSON object was expected, got {type(value).__name__}")


@lru_cache(maxsize=2)
def _read_index(path: Path, modified: int) -> dict[str, Any]:
    """The index of a tar as it was `modified`."""
    return read_json(path)


def _walk_tar(path: Path) -> tuple[list[tuple[str, dict[str, tuple[int, int]]]], str | None]:
    """Name and files (offset, size) of every sample, and what is wrong with the tar."""
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    damage = None
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.offset_data + member.size <= path.stat().st_size:
                        _add_member(samples, member)
                file.seek(tar.offset)
                # tarfile takes any unreadable header but the first for the end.
                if file.read(tarfile.BLOCKSIZE).strip(b"\0") or file.tell() == tar.offset:
                    damage = "the tar is damaged or cut off behind its last readable file"
        except tarfile.TarError as error:
            damage = f"the tar is damaged, cut off or compressed ({error}); unpack or copy it again"
    return samples, damage


def _add_member(
    samples: list[tuple[str, dict[str, tuple[int, int]]]], member: tarfile.TarInfo
) -> None:
    key, suffix = split_member(member)
    if not key:
        return
    if not samples or samples[-1][0] != key:
        samples.append((key, {}))
    if is_read(suffix):
        samples[-1][1][suffix] = (member.offset_data, member.size)
