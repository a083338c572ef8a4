"""Train a UniTok tokenizer on drawn scenes: reconstruction, contrastive and VQ losses."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from eval.inspector import inspect, same_objects
from eval.scene_scores import scene_pixels
from eval.scenes import scene_for
from mllm.pictures import save_png
from train.config import RunConfig
from train.loop import LoopConfig, StageLoop
from train.losses import contrastive_loss, edge_loss, l1_loss, l2_loss
from train.reconstruction_grid import reconstruction_grid
from train.scene_data import TokenizerBatches
from train.tokenizer_start import load_tokenizer
from unitok.config import UniTokConfig
from unitok.image import to_pil
from unitok.model import MAX_LOGIT_SCALE, UniTok

NUM_PREVIEWS = 64  # scenes that are reconstructed and inspected now and then
FIRST_PREVIEW = 1_000_000  # of the held-out scenes; the final score looks at the first thousand
NUM_SHOWN = 24


class LossWeights(RunConfig):
    """The official weights are L1 0.2, L2 1, VQ 1, CLIP 1 beside the perceptual terms."""

    l1: float = 0.2
    l2: float = 1.0
    edge: float = 0.0  # our addition, for sizes at which no perceptual network was trained
    vq: float = 1.0
    clip: float = 1.0


class NanoTokenizerConfig(RunConfig):
    """Everything about one tokenizer run but its time."""

    model: UniTokConfig
    init_from: str | None = None  # weights to start from: `nano`, a folder or a hub name
    batch_size: int = Field(gt=0)
    weights: LossWeights = LossWeights()
    loop: LoopConfig


class TokenizerTraining:
    """Losses and previews of one tokenizer run."""

    def __init__(self, model: UniTok, folder: Path, *, weights: LossWeights) -> None:
        self.model = model
        self.folder = folder
        self.weights = weights
        self.scenes = [scene_for("held_out", FIRST_PREVIEW + i) for i in range(NUM_PREVIEWS)]

    def losses(self, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Named loss terms of pixels (B, 3, S, S) and text ids (B, T), and their weighted sum."""
        pixels, text_ids = batch
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        output = self.model(pixels.contiguous(memory_format=torch.channels_last), text_ids)
        assert output.text_features is not None
        terms = {
            "l1": l1_loss(output.reconstruction, pixels),
            "l2": l2_loss(output.reconstruction, pixels),
            "edge": edge_loss(output.reconstruction, pixels),
            "vq": output.vq_loss,
            "clip": contrastive_loss(
                output.image_features, output.text_features, output.logit_scale
            ),
        }
        total = torch.stack([getattr(self.weights, k) * v for k, v in terms.items()]).sum()
        return {"loss": total, **terms, "usage": output.usage}

    def preview(self, step: int) -> Mapping[str, float]:
        """Reconstruct held-out scenes that are not scored: some as a picture, the share kept."""
        pixels = scene_pixels(self.scenes, self.model.config.image_size)
        rebuilt = self.model.decode(self.model.encode(pixels))
        pictures = to_pil(rebuilt)
        same = [
            same_objects(inspect(np.asarray(picture)), scene)
            for picture, scene in zip(pictures, self.scenes, strict=True)
        ]
        path = self.folder / "samples" / f"tokenizer_{step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(reconstruction_grid(to_pil(pixels)[:NUM_SHOWN], pictures[:NUM_SHOWN]), path)
        return {"same_objects": sum(same) / len(same), "eval_l1": l1_loss(rebuilt, pixels).item()}


def train_tokenizer(
    config: NanoTokenizerConfig, folder: Path, *, minutes: float | None = None, resume: bool = False
) -> UniTok | None:
    """Train in `folder`; returns the model, or None when a signal stopped the run."""
    torch.manual_seed(config.loop.seed)
    model = (
        UniTok(config.model)
        if config.init_from is None
        else load_tokenizer(config.init_from, config.model)
    ).to(memory_format=torch.channels_last)
    training = TokenizerTraining(model, folder, weights=config.weights)
    stage = StageLoop(
        "tokenizer",
        folder,
        model=model,
        data=TokenizerBatches(
            config.batch_size,
            image_size=config.model.image_size,
            vocab_size=config.model.text_vocab_size,
            context_length=config.model.text_context_length,
        ),
        compute_losses=training.losses,
        config=config.loop,
        samples_per_step=config.batch_size,
        sample=training.preview,
    )
    return model.eval() if stage.run(minutes=minutes, resume=resume) else None
