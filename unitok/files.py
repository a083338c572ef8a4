"""Files: written so that nobody ever sees half of one, checked first for where they may go.

And JSON files, because what is wrong with one should be said in one sentence.
"""

import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes `path`'s place when the block ends well.

    An error inside the block removes the temporary file and leaves what was at `path` as it was.
    The temporary name keeps the suffix, because writers such as Pillow choose the format by it.
    """
    # A link keeps pointing where it did: its target is what gets replaced.
    target = Path(os.path.realpath(path))
    _refuse_what_is_no_file(target)
    temporary = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    temporary.touch(exist_ok=False)
    mode = target.stat().st_mode if target.exists() else temporary.stat().st_mode
    try:
        yield temporary
        # Some writers make files that only their owner can read: give back the usual rights.
        temporary.chmod(mode)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """`path`, if a file may be written there; otherwise an `OSError` that says what to change.

    Meant to be called before a long computation, so that it is not lost at the end.
    """
    target = Path(path)
    _refuse_what_is_no_file(target)
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists already; pass --force to overwrite it")
    folder = target.parent
    if not folder.exists():
        raise FileNotFoundError(f"cannot write {target}: create the folder {folder} first")
    if not folder.is_dir():
        raise NotADirectoryError(f"cannot write {target}: {folder} is a file, not a folder")
    try:
        # Tried, because rights do not tell: root may do anything, but not on every file system.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write {target}: no file can be made in {folder} ({error.strerror}); name "
            "another folder"
        ) from error
    return target


def read_text(path: str | os.PathLike[str]) -> str:
    """A file's text; ValueError that names the file if it holds none in UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file ({error}); save or download it again") from None


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file; ValueError that names the file for anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}); save or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold one JSON object, got {type(content).__name__}; save or download it "
            "again"
        )
    return content


def write_json(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Store an object as JSON in one step."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def parse_json_object(line: str | bytes, place: str) -> dict[str, Any]:
    """The object in one line of JSON; ValueError that names the place for anything else."""
    try:
        record = json.loads(line.decode() if isinstance(line, bytes) else line)
    except ValueError as error:
        raise ValueError(f"{place}: expected one JSON object ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{place}: expected one JSON object, got {type(record).__name__}")
    return record


def _refuse_what_is_no_file(target: Path) -> None:
    """Replacing a folder fails late, and replacing a device such as /dev/null does harm."""
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name a file in it to write to")
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is not a regular file; name another path to write to")
