"""Weights that others published as a .pth file: found, told from others by their hash, and read."""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from eval.file_hashes import sha256_of


@dataclass(frozen=True)
class ReleasedWeights:
    """One published file. Its own library downloads it to torch's cache, under the same name."""

    network: str  # in words
    file_name: str
    sha256: str  # the first digits, which the file's name repeats
    source: str  # where to download it
    option: str  # of the commands that read it

    @property
    def default_path(self) -> Path:
        """Where the library that publishes it keeps its download."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file_name

    def check(self, path: Path) -> str:
        """SHA-256 of the file at `path`; says what to get if it is not there."""
        if not path.is_file():
            raise FileNotFoundError(
                f"no {self.network} weights at {path}; download {self.source} to there, or name "
                f"the file with {self.option}"
            )
        sha256 = sha256_of(path)
        if not sha256.startswith(self.sha256):
            raise ValueError(
                f"{path} has the SHA-256 {sha256[:8]}..., expected {self.sha256}...; other weights "
                f"give other scores: download {self.source} again"
            )
        return sha256

    def read(self, path: Path) -> dict[str, Tensor]:
        """The tensors of the file; nothing else in it is unpickled."""
        try:
            weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError) as error:
            raise ValueError(
                f"{path} holds no tensors that can be read safely; download {self.source} again"
            ) from error
        return weights
