"""What a tokenizer in training makes of pictures that stay the same: to look at, and in numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from eval.codebook_use import use_of_shares
from mllm.pictures import save_png
from train.losses import l1_loss
from train.reconstruction_grid import reconstruction_grid
from unitok.image import psnr, to_pil
from unitok.model import UniTok


@contextmanager
def judged(model: UniTok) -> Iterator[None]:
    """The model as it will be used, without compiling anything for it."""
    was_training = model.training
    model.eval()
    with torch.compiler.set_stance("force_eager"):
        yield
    model.train(was_training)


class Preview:
    """Reconstructs some pictures now and then."""

    def __init__(self, pixels: Tensor, folder: Path) -> None:
        """`pixels` (N, 3, S, S) in [-1, 1]; grids go to samples/ in the run folder."""
        self.pixels = pixels
        self.folder = folder / "samples"

    @torch.no_grad()
    def measure(self, model: UniTok, *, name: str) -> tuple[Image.Image, dict[str, float]]:
        """A grid of pictures above their reconstructions, and values of `name`, eval or ema."""
        rebuilt = model.decode(model.encode(self.pixels))
        values = {
            f"{name}/l1": l1_loss(rebuilt, self.pixels).item(),
            f"{name}/psnr": psnr(rebuilt, self.pixels).mean().item(),
        }
        return reconstruction_grid(to_pil(self.pixels), to_pil(rebuilt)), values

    def save(self, grid: Image.Image, *, name: str, step: int) -> None:
        self.folder.mkdir(exist_ok=True)
        save_png(grid, self.folder / f"{name}_{step:06d}.png")


def usage_values(model: UniTok) -> Mapping[str, float]:
    """Of each codebook, from the running average of the quantizer."""
    use = use_of_shares(model.quantizer.vocab_usage_KV.double().cpu().numpy())
    values = {}
    for name, measured_K in (("usage", use.usage_K), ("perplexity", use.perplexity_K)):
        values[f"{name}/mean"] = measured_K.mean().item()
        values |= {f"{name}/codebook_{k}": value for k, value in enumerate(measured_K.tolist())}
    return values
