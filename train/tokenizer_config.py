"""Settings of a tokenizer training, as `train.tokenizer` reads them from YAML.

The defaults are those of the published recipe, for a batch of 16,384 pictures.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from train.config import RunConfig
from train.discriminator import DiscriminatorConfig
from train.optimizers import GeneratorOptimConfig, OptimConfig
from train.perceptual import PerceptualConfig
from train.picture_config import PictureSourceConfig, TokenizerDataConfig
from train.tokenizer_start import StartConfig
from unitok.config import UniTokConfig


class BatchConfig(RunConfig):
    """Pictures of one step, over all processes."""

    size: int = Field(gt=0)  # that the contrastive loss compares with each other
    vae_batch: int | None = Field(default=None, gt=0)  # of them, how many are decoded; None: all
    accumulation: int = Field(default=1, gt=0)  # parts that a process takes one after another

    @model_validator(mode="after")
    def _check_shares(self) -> "BatchConfig":
        if self.size % (self.vae_batch or 1):
            raise ValueError(
                f"batch.size must be a multiple of batch.vae_batch, so that every n-th picture is "
                f"decoded, got {self.size} and {self.vae_batch}"
            )
        return self

    @property
    def decode_every(self) -> int:
        """One of so many pictures is decoded."""
        return self.size // (self.vae_batch or self.size)

    def check_parts(self, num_processes: int) -> None:
        """Raise ValueError for a batch that so many processes cannot share."""
        part = self.size / num_processes / self.accumulation
        if part % self.decode_every:
            raise ValueError(
                f"batch.size {self.size} over {num_processes} processes and {self.accumulation} "
                f"accumulation steps gives parts of {part:g} pictures, expected a multiple of "
                f"{self.decode_every}, as one of so many is decoded"
            )


class LossWeights(RunConfig):
    """Factors of the losses; a loss of weight 0 is not computed."""

    l1: float = Field(default=0.2, ge=0)
    l2: float = Field(default=1.0, ge=0)
    edge: float = Field(default=0.0, ge=0)  # for sizes that no perceptual network was trained on
    lpips: float = Field(default=1.0, ge=0)
    gan: float = Field(default=0.4, ge=0)  # beside the adaptive weight
    vq: float = Field(default=1.0, ge=0)
    clip: float = Field(default=1.0, ge=0)
    entropy: float = Field(default=0.0, ge=0)  # of the pictures that are taken at once

    @property
    def reconstructs(self) -> bool:
        """Whether anything is learned from the decoder's pictures."""
        return self.l1 + self.l2 + self.edge + self.lpips > 0

    @model_validator(mode="after")
    def _check_adversary(self) -> "LossWeights":
        if self.gan and not self.reconstructs:
            raise ValueError(
                "weights.gan is relative to the reconstruction losses, which are all 0; give one "
                "of l1, l2, edge and lpips a weight, or set gan to 0"
            )
        return self


class AdversaryOptimConfig(OptimConfig):
    """The discriminator's own; published values as defaults."""

    lr: float = Field(default=2e-5, gt=0)
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = 0.2
    warmup_share: float = Field(default=0.03, ge=0, le=1)


class AdversaryConfig(RunConfig):
    """The discriminator and how it is trained."""

    network: DiscriminatorConfig = DiscriminatorConfig()
    optim: AdversaryOptimConfig = AdversaryOptimConfig()
    start_share: float = Field(default=0.375, ge=0, le=1)  # of the steps go by without it
    consistency: float = Field(default=4.0, ge=0)  # weight of its consistency loss


class ScoresConfig(RunConfig):
    """Scores of held-out pictures, as `eval.reconstruction` and `eval.zeroshot` measure them."""

    every: int = Field(gt=0)  # steps; and at the end
    data: str  # folder, .npz, .parquet, saved table or hub name; zero_shot needs labels
    split: str = "validation"  # of a table that has several
    limit: int | None = Field(default=None, gt=0)  # only so many pictures, spread over the source
    batch_size: int = Field(default=32, gt=0)  # pictures at a time
    rfid: bool = True
    inception: Path | None = None  # Inception's weights; None: torch-fidelity's download
    zero_shot: bool = True
    classes: Path | None = None  # class names, one a line, by label; None: ImageNet's
    templates: Path | None = None  # texts with {} for the name, one a line; None: CLIP's

    @model_validator(mode="after")
    def _check_choice(self) -> "ScoresConfig":
        if not (self.rfid or self.zero_shot):
            raise ValueError("watch.scores measures nothing: set rfid or zero_shot, or drop it")
        return self


class WatchConfig(RunConfig):
    """Bookkeeping, in steps."""

    log_every: int = Field(default=50, gt=0)
    sample_every: int = Field(default=1000, gt=0)
    num_samples: int = Field(default=16, gt=0)  # pictures that are reconstructed to look at
    source: PictureSourceConfig | None = None  # of these pictures; None: the training's own
    scores: ScoresConfig | None = None  # None: measured by hand, in the end
    save_every: int = Field(default=1000, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)


class TokenizerConfig(RunConfig):
    """One run."""

    output: str  # run folder
    model: UniTokConfig
    data: TokenizerDataConfig
    batch: BatchConfig
    steps: int = Field(gt=0)
    init_from: StartConfig = StartConfig()
    weights: LossWeights = LossWeights()
    perceptual: PerceptualConfig = PerceptualConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    optim: GeneratorOptimConfig = GeneratorOptimConfig()
    ema_decay: float | None = Field(default=None, gt=0, lt=1)  # None: no averaged weights
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    compile: bool = False  # blocks through torch.compile; needs a C++ compiler
    zero1: bool = False  # each process keeps its share of the optimizer's state
    num_workers: int = Field(default=4, ge=0)  # processes that read pictures, per process
    watch: WatchConfig = WatchConfig()
    device: Literal["auto", "cpu"] = "auto"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_scores(self) -> "TokenizerConfig":
        scores = self.watch.scores
        if scores is not None and scores.zero_shot and not self.weights.clip:
            raise ValueError(
                "watch.scores.zero_shot compares pictures with texts, which weights.clip 0 leaves "
                "untrained; give it a weight, or set watch.scores.zero_shot=false"
            )
        return self

    @model_validator(mode="after")
    def _check_zero1(self) -> "TokenizerConfig":
        if self.zero1 and self.optim.optimizer != "adamw":
            raise ValueError(
                "zero1 shares out the state of AdamW, got optim.optimizer "
                f"{self.optim.optimizer}; set zero1 to false, or optim.optimizer to adamw"
            )
        return self
