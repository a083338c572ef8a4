"""SHA-256 of files and lines: data that differs in one line is another benchmark."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, which may be larger than the memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_lines(lines: Iterable[str]) -> str:
    """SHA-256 of lines joined by newlines, as UTF-8."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_sha256(path: Path, expected: str, *, name: str, source: str) -> None:
    """Raise FileNotFoundError or ValueError unless `path` is the published file called `name`."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; expected {name}, {source}")
    if (sha256 := sha256_of(path)) != expected:
        raise ValueError(
            f"{path} is not {name}: its SHA-256 is {sha256[:8]}..., expected {expected[:8]}...; "
            f"take the file {source}, or pass --unofficial and say so beside every score"
        )
