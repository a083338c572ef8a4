"""Training batches of a tokenizer: pictures with captions, from any source, for any process.

Each process takes its share of every global batch. Skipped samples are named in the log, and a
source of which more than one sample in a hundred is bad stops the run.

Shapes: B samples of one process, S pixels of a side, T text ids.
"""

import logging
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.picture_config import (
    CropConfig,
    FolderConfig,
    ScenesConfig,
    TokenizerDataConfig,
)
from train.picture_crops import crop_pixels
from train.picture_encoder import pixels_or_reason
from train.picture_sources import (
    CaptionedPicture,
    FolderPictures,
    PictureSource,
    ScenePictures,
    ShuffledPictures,
)
from train.sources import BadSample
from train.stop_request import leave_signals_to_parent
from unitok.config import UniTokConfig
from unitok.text import build_text_tokenizer

logger = logging.getLogger(__name__)

MAX_BAD_SHARE = 0.01
MIN_JUDGED = 1000  # samples; before there are so many, a share says little
ENDLESS = 10**12  # steps
PREFETCHED = 4  # batches of each worker


@dataclass(frozen=True, eq=False)
class TokenizerBatch:
    """One process's share of a step."""

    pixels: Tensor  # (B, 3, S, S) in [-1, 1]
    text_ids: Tensor  # (B, T) int64
    seeds: Tensor  # (B,) int64: of all chance that concerns a sample

    def to(self, device: torch.device | str) -> "TokenizerBatch":
        return TokenizerBatch(
            self.pixels.to(device, non_blocking=True),
            self.text_ids.to(device, non_blocking=True),
            self.seeds.to(device, non_blocking=True),
        )


class TokenizerData:
    """The batches of one of `world_size` processes."""

    def __init__(
        self,
        config: TokenizerDataConfig,
        *,
        model_config: UniTokConfig,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 1,
        seed: int = 0,
    ) -> None:
        """`batch_size` is that of all processes together; workers are processes of each."""
        if batch_size % world_size:
            raise ValueError(
                f"the batch of {batch_size} samples cannot be shared by {world_size} processes; "
                "choose a multiple"
            )
        self.num_workers = num_workers
        self.num_skipped = 0  # bad samples, since the run began
        self._steps = _Steps(
            open_pictures(config, image_size=model_config.image_size, seed=seed),
            _SampleReader(config.crop, model_config=model_config, seed=seed),
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
        )

    def batches(self, first_step: int = 0) -> Iterator[TokenizerBatch]:
        """The batches of steps `first_step`, `first_step + 1`, ... without end."""
        loader = DataLoader(
            self._steps,
            batch_size=None,
            sampler=range(first_step, ENDLESS),
            num_workers=self.num_workers,
            prefetch_factor=PREFETCHED if self.num_workers else None,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # or starting it would disturb the run's random state
        )
        for step, (batch, skipped) in enumerate(loader, start=first_step):
            self._count(skipped, step)
            assert batch is not None
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """What this process needs to go on behind the last batch it was given; fits into JSON."""
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_skipped = state["num_skipped"]

    def _count(self, skipped: list[BadSample], step: int) -> None:
        for sample in skipped:
            logger.warning("skipped %s: %s", sample.id, sample.reason)
        self.num_skipped += len(skipped)
        num_used = (step + 1) * self._steps.share
        if self.num_skipped > max_skipped(num_used):
            raise RuntimeError(
                f"{self.num_skipped} bad samples beside {num_used} good ones, expected at most 1 "
                f"in 100; repair the source, the last one is {skipped[-1].id}: {skipped[-1].reason}"
            )


def open_pictures(config: TokenizerDataConfig, *, image_size: int, seed: int) -> PictureSource:
    """Open the source and check what can be checked before the first sample."""
    source = config.source
    if isinstance(source, ScenesConfig):
        return ScenePictures(image_size)
    assert isinstance(source, FolderConfig)
    return ShuffledPictures(FolderPictures(source), seed=seed)


def max_skipped(num_used: int) -> int:
    """How many bad samples are accepted beside so many good ones."""
    return int(MAX_BAD_SHARE * max(num_used, MIN_JUDGED))


class _Sample(NamedTuple):
    pixels: Tensor  # (3, S, S)
    caption: str
    seed: int


class _Step(NamedTuple):
    batch: TokenizerBatch | None  # None: too much was skipped
    skipped: list[BadSample]


class _SampleReader:
    """Makes training samples of captioned pictures."""

    def __init__(self, crop: CropConfig, *, model_config: UniTokConfig, seed: int) -> None:
        self.crop = crop
        self.image_size = model_config.image_size
        self.seed = seed
        self.tokenizer: SimpleTokenizer = build_text_tokenizer(
            model_config.text_vocab_size, model_config.text_context_length
        )

    def read(self, raw: CaptionedPicture, number: int) -> _Sample | BadSample:
        """Sample `number`, made of `raw`."""
        seed = random.Random(f"{self.seed}:{number}").getrandbits(63)
        rng = random.Random(f"{seed}:picture")
        caption = rng.choice(raw.captions)

        def to_pixels(image: Image.Image) -> Tensor:
            return crop_pixels(image, self.crop, image_size=self.image_size, rng=rng)

        if isinstance(raw.picture, Image.Image):
            return _Sample(to_pixels(raw.picture), caption, seed)
        pixels = pixels_or_reason(raw.picture, to_pixels)
        if isinstance(pixels, str):
            return BadSample(raw.id, pixels)
        return _Sample(pixels, caption, seed)

    def collate(self, samples: list[_Sample]) -> TokenizerBatch:
        return TokenizerBatch(
            torch.stack([sample.pixels for sample in samples]),
            self.tokenizer([sample.caption for sample in samples]),
            torch.tensor([sample.seed for sample in samples]),
        )


class _Steps(Dataset[_Step]):
    """`self[step]` is a process's share of that step."""

    def __init__(
        self,
        source: PictureSource,
        reader: _SampleReader,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.source = source
        self.reader = reader
        self.batch_size = batch_size
        self.share = batch_size // world_size
        self.first = rank * self.share  # of a batch

    def __getitem__(self, step: int) -> _Step:
        first = step * self.batch_size + self.first
        limit = max_skipped((step + 1) * self.share)
        samples: list[_Sample] = []
        skipped: list[BadSample] = []
        for number in range(first, first + self.share):
            for sample in self._candidates(number):
                if isinstance(sample, _Sample):
                    samples.append(sample)
                    break
                skipped.append(sample)
                if len(skipped) > limit:  # the run stops: no need to search to the end
                    return _Step(None, skipped)
        return _Step(self.reader.collate(samples), skipped)

    def _candidates(self, number: int) -> Iterator[_Sample | BadSample]:
        for raw in self.source.candidates(number):
            yield raw if isinstance(raw, BadSample) else self.reader.read(raw, number)
