"""Codes files: what the tokenizer makes of images, with all that is needed to decode them again.

A codes file is a safetensors file with one uint16 tensor (L, K) per image. Its metadata hold the
format version, the fingerprint of the tokenizer and the precision it ran in, the codebook size,
and name and grid of every image. Images may differ in their grids.

Shapes: L visual tokens (h*w, row-major), K codebooks.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unitok.files import atomic_write

FORMAT = "unitok-codes"
FORMAT_VERSION = 1
MAX_CODEBOOK_SIZE = 2**16  # codes are uint16 on disk


@dataclass(frozen=True, eq=False)
class ImageCodes:
    """The codes of one image, checked at construction."""

    codes: Tensor  # int64 (L, K)
    grid: tuple[int, int]  # rows and columns of visual tokens
    name: str  # a file name without folder, unique in its file: decoding writes one image per name

    def __post_init__(self) -> None:
        height, width = self.grid
        shape = tuple(self.codes.shape)
        if self.codes.dtype != torch.int64:
            raise ValueError(f"codes of {self.name!r} must be int64, got {self.codes.dtype}")
        if height < 1 or width < 1:
            raise ValueError(
                f"grid of {self.name!r} must be positive (rows, columns), got {self.grid}"
            )
        if len(shape) != 2 or shape[0] != height * width or shape[1] < 1:
            raise ValueError(
                f"codes of {self.name!r} must be (L, K) with L = {height}*{width}, got {shape}"
                + _layout_hint(shape, height * width)
            )
        if (
            self.name in ("", ".", "..")
            or not self.name.isprintable()
            or set(self.name) & set("/\\")
        ):
            raise ValueError(f"an image's name must be a plain file name, got {self.name!r}")


@dataclass(frozen=True)
class CodesFile:
    """Everything that a codes file holds."""

    images: tuple[ImageCodes, ...]
    fingerprint: str  # of the tokenizer that wrote the codes
    codebook_size: int  # V; every code is below it
    dtype: str | None = None  # that the tokenizer ran in; None: the file does not say

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("a codes file holds at least one image, got none")
        if not self.fingerprint:
            raise ValueError("a codes file needs its tokenizer's fingerprint, got an empty one")
        if not 1 <= self.codebook_size <= MAX_CODEBOOK_SIZE:
            raise ValueError(
                f"codebook_size must be 1 to {MAX_CODEBOOK_SIZE}, got {self.codebook_size}"
            )
        names = [image.name for image in self.images]
        if len(set(names)) < len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two images are named {repeated!r}; names must differ within a file")
        for image in self.images:
            _check_range(image, self.codebook_size)


def save_codes(
    path: str | os.PathLike[str],
    images: Sequence[ImageCodes],
    *,
    fingerprint: str,
    codebook_size: int,
    dtype: str | None = None,
) -> None:
    """Write a codes file in one step, replacing what was at `path`."""
    content = CodesFile(tuple(images), fingerprint, codebook_size, dtype)
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "fingerprint": fingerprint,
        "codebook_size": str(codebook_size),
        "names": json.dumps([image.name for image in content.images]),
        "grids": json.dumps([image.grid for image in content.images]),
    }
    if dtype is not None:
        metadata["dtype"] = dtype
    tensors = {
        _tensor_name(number): image.codes.cpu().to(torch.uint16).contiguous()
        for number, image in enumerate(content.images)
    }
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_codes(path: str | os.PathLike[str]) -> CodesFile:
    """Read a codes file back, checked as strictly as when it was written."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name one codes file in it")
    if not path.is_file():
        raise FileNotFoundError(f"no codes file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            return _read(path, file, metadata)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no codes file, or a damaged one ({error}); encode the images again"
        ) from error


def check_fingerprint(codes: CodesFile, tokenizer_fingerprint: str) -> None:
    """Refuse codes of another tokenizer: they would decode to an unrelated picture."""
    if codes.fingerprint != tokenizer_fingerprint:
        raise ValueError(
            f"these codes were made by tokenizer {codes.fingerprint}, but "
            f"{tokenizer_fingerprint} is loaded; load the one that made them, "
            "or encode the images again"
        )


def _tensor_name(number: int) -> str:
    return f"codes.{number:06d}"


def _layout_hint(shape: tuple[int, ...], num_tokens: int) -> str:
    if num_tokens in shape[1:]:
        return "; official UniTok files are (B, K, L): transpose the last two dimensions first"
    return ""


def _check_range(image: ImageCodes, codebook_size: int) -> None:
    low, high = int(image.codes.min()), int(image.codes.max())
    if low < 0 or high >= codebook_size:
        raise ValueError(
            f"codes of {image.name!r} must be 0 to {codebook_size - 1}, got {low} to {high}; "
            "they belong to another tokenizer or are damaged"
        )


def _check_format(path: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file, but holds no codes of ours; "
            "make codes files with `unitok encode`"
        )
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise ValueError(
            f"{path} has codes format version {metadata.get('format_version')}, this program reads "
            f"version {FORMAT_VERSION}; encode the images again or use a matching release"
        )


def _read(path: Path, file: Any, metadata: dict[str, str]) -> CodesFile:
    """Contents of an opened codes file; whatever is wrong with it names the file."""
    try:
        names, grids = json.loads(metadata["names"]), json.loads(metadata["grids"])
        expected = [_tensor_name(number) for number in range(len(names))]
        if sorted(file.keys()) != expected or len(grids) != len(names):
            raise ValueError("its names, grids and tensors differ in number")
        images = tuple(
            ImageCodes(_read_tensor(file, key), (int(grid[0]), int(grid[1])), str(name))
            for key, grid, name in zip(expected, grids, names, strict=True)
        )
        return CodesFile(
            images,
            metadata["fingerprint"],
            int(metadata["codebook_size"]),
            metadata.get("dtype"),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is a damaged codes file: {error}") from error


def _read_tensor(file: Any, key: str) -> Tensor:
    codes: Tensor = file.get_tensor(key)
    if codes.dtype != torch.uint16:
        raise ValueError(f"tensor {key} must be uint16, got {codes.dtype}")
    return codes.to(torch.int64)
