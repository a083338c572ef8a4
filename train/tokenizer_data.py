"""Training batches of a tokenizer: pictures with captions, from any source, for any process.

Each process takes its share of every global batch. Skipped samples are named in the log, and a
source of which more than one sample in a hundred is bad stops the run.

Shapes: B samples of one process, S pixels of a side, T text ids.
"""

import logging
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.batch_layout import BatchLayout
from train.picture_config import (
    CropConfig,
    FolderConfig,
    PictureSourceConfig,
    ScenesConfig,
    TarPicturesConfig,
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
    StreamPosition,
    TablePictures,
)
from train.picture_streams import PictureStreams
from train.sample_seeds import derive
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

    def pin_memory(self) -> "TokenizerBatch":
        """A copy that a GPU can fetch while the program goes on; torch's loader asks for it."""
        return TokenizerBatch(
            self.pixels.pin_memory(), self.text_ids.pin_memory(), self.seeds.pin_memory()
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
        pin_memory: bool = False,
    ) -> None:
        """`batch_size` is that of all processes together; each has `num_workers` of its own.

        `pin_memory` is for batches that go to a GPU.
        """
        self.pin_memory = pin_memory
        self.layout = BatchLayout(
            batch_size, rank=rank, world_size=world_size, num_workers=num_workers
        )
        self.num_skipped = 0  # bad samples of this process, since the run began
        self._source = open_pictures(
            config.source, layout=self.layout, image_size=model_config.image_size, seed=seed
        )
        reader = _SampleReader(config.crop, model_config=model_config, seed=seed)
        self._steps = _Steps(self._source, reader, layout=self.layout)
        self._next_step = 0
        self._positions: list[StreamPosition] = []  # of streams, before the next step

    def batches(self, first_step: int = 0) -> Iterator[TokenizerBatch]:
        """The batches of steps `first_step`, `first_step + 1`, ... without end.

        To go on with a run, load its state first; step 0 begins a new one.
        """
        if first_step == 0:
            self.num_skipped = self._next_step = 0
        if isinstance(self._source, PictureStreams):
            if first_step != self._next_step:
                raise ValueError(
                    f"the data stand before step {self._next_step}, got step {first_step}; load "
                    "the state that was saved there"
                )
            if first_step == 0:
                self._positions = self._source.beginning
            self._source.start(self._positions)
        return self._load(first_step)

    def first_batch(self) -> TokenizerBatch:
        """The batch of step 0, read without workers: for who only wants to look."""
        return self._batch(self._steps[0], 0)

    def state_dict(self) -> dict[str, Any]:
        """What this process, and no other, needs to go on behind its last batch; fits JSON."""
        return {
            **asdict(self.layout),
            "next_step": self._next_step,
            "num_skipped": self.num_skipped,
            "positions": [list(position) for position in self._positions],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Where data are streamed, raises ValueError for the state of another layout."""
        if isinstance(self._source, PictureStreams):
            saved = {key: state[key] for key in asdict(self.layout)}
            if saved != asdict(self.layout):
                raise ValueError(
                    f"the position in the tars was saved by {saved}, expected "
                    f"{asdict(self.layout)}; resume with the same numbers"
                )
            self._positions = [StreamPosition(*position) for position in state["positions"]]
        self._next_step = state["next_step"]
        self.num_skipped = state["num_skipped"]

    def _load(self, first_step: int) -> Iterator[TokenizerBatch]:
        num_workers = self.layout.num_workers
        loader = DataLoader(
            self._steps,
            batch_size=None,
            sampler=range(first_step, ENDLESS),
            num_workers=num_workers,
            prefetch_factor=PREFETCHED if num_workers else None,
            pin_memory=self.pin_memory,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # or starting it would disturb the run's random state
        )
        for step, found in enumerate(loader, start=first_step):
            batch = self._batch(found, step)
            self._next_step = step + 1
            if found.position is not None:
                self._positions[self.layout.stream(step)] = found.position
            yield batch

    def _batch(self, found: "_Step", step: int) -> TokenizerBatch:
        """What was found for a step; RuntimeError if that cannot be trained on."""
        self._count(found.skipped, step)
        if found.batch is None:
            raise RuntimeError(f"no data for step {step}: {found.failure}")
        return found.batch

    def _count(self, skipped: list[BadSample], step: int) -> None:
        for sample in skipped:
            logger.warning("skipped %s: %s", sample.id, sample.reason)
        self.num_skipped += len(skipped)
        num_used = (step + 1) * self.layout.share
        if self.num_skipped > max_skipped(num_used):
            raise RuntimeError(
                f"{self.num_skipped} bad samples beside {num_used} good ones, expected at most 1 "
                f"in 100; repair the source, the last one is {skipped[-1].id}: {skipped[-1].reason}"
            )


def open_pictures(
    config: PictureSourceConfig, *, layout: BatchLayout, image_size: int, seed: int
) -> PictureSource:
    """Open the source and check what can be checked before the first sample."""
    if isinstance(config, TarPicturesConfig):
        return PictureStreams(config, layout=layout, seed=seed)
    if isinstance(config, ScenesConfig):
        return ScenePictures(image_size, seed=seed)
    if isinstance(config, FolderConfig):
        return ShuffledPictures(FolderPictures(config), seed=seed)
    return ShuffledPictures(TablePictures(config), seed=seed)


def max_skipped(num_used: int) -> int:
    """How many bad samples are accepted beside so many good ones."""
    return int(MAX_BAD_SHARE * max(num_used, MIN_JUDGED))


class _Sample(NamedTuple):
    pixels: Tensor  # (3, S, S)
    caption: str
    seed: int


class _Step(NamedTuple):
    """What a worker gives for a step: a batch, or why there is none."""

    batch: TokenizerBatch | None
    skipped: list[BadSample]
    position: StreamPosition | None = None  # behind the step, where data are streamed
    failure: str = ""


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
        seeds = derive(torch.tensor([number]), f"sample of run {self.seed}")
        seed = int(seeds)
        rng = random.Random(int(derive(seeds, "picture")))
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
        self, source: PictureSource, reader: _SampleReader, *, layout: BatchLayout
    ) -> None:
        self.source = source
        self.reader = reader
        self.layout = layout

    def __getitem__(self, step: int) -> _Step:
        limit = max_skipped((step + 1) * self.layout.share)
        samples: list[_Sample] = []
        skipped: list[BadSample] = []
        try:
            for sample in self._read(step):
                if isinstance(sample, _Sample):
                    samples.append(sample)
                    continue
                skipped.append(sample)
                if len(skipped) > limit:  # the run stops: no need to search to the end
                    return _Step(None, skipped)
        except OSError as error:  # raised by the main process, without the worker's traceback
            return _Step(None, skipped, failure=str(error))
        return _Step(self.reader.collate(samples), skipped, self.source.position(step))

    def _read(self, step: int) -> Iterator[_Sample | BadSample]:
        """The samples of a step, and what is skipped on the way."""
        for number in self.layout.numbers(step):
            for raw in self.source.candidates(step, number):
                sample = raw if isinstance(raw, BadSample) else self.reader.read(raw, number)
                yield sample
                if isinstance(sample, _Sample):
                    break
