"""Samples with pictures in, the same with codes out: read by threads, encoded in batches."""

import errno
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mllm.devices import explain_out_of_memory
from train.code_shards import PictureCodes
from train.sources import BadSample, RawSample
from unitok.image import load_image, preprocess
from unitok.model import UniTok

# A file name that no system takes; other errors that have a number are the machine's.
BAD_NAME_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP)
MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

Loaded = Tensor | str  # pixels (1, 3, H, W), or why there are none


@dataclass(frozen=True, eq=False)
class EncodedSample:
    """A sample and the codes of its pictures, in reading order."""

    sample: RawSample
    pictures: tuple[PictureCodes, ...]


@dataclass(eq=False)
class _Pending:
    """A sample on its way."""

    sample: RawSample | BadSample
    codes: list[PictureCodes | None] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return isinstance(self.sample, BadSample) or None not in self.codes

    def result(self) -> EncodedSample | BadSample:
        if isinstance(self.sample, BadSample):
            return self.sample
        return EncodedSample(self.sample, tuple(codes for codes in self.codes if codes))


def pixels_or_reason(
    picture: Path | bytes, to_pixels: Callable[[Image.Image], Tensor]
) -> Tensor | str:
    """The pixels of a picture file, or why there are none.

    A broken picture is its sample's fault; a broken disk ends the run, to be started again.
    A reason must not change from run to run, hence no memory addresses.
    """
    try:
        return to_pixels(load_image(picture))
    except (ValueError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        return MEMORY_ADDRESS.sub("", str(error))
    except OSError as error:
        if error.errno not in BAD_NAME_ERRORS:
            raise
        return f"no file can have the name {str(picture)[:100]}"


class PictureEncoder:
    """Encodes the pictures of many samples together; what is bad is named, not raised."""

    def __init__(self, tokenizer: UniTok, *, recipe: str, batch_size: int) -> None:
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.batch_size = batch_size

    def encode(
        self, samples: Iterable[RawSample | BadSample], *, workers: int
    ) -> Iterator[EncodedSample | BadSample]:
        """The samples in their order, pictures as codes.

        Which pictures share a batch depends on the samples alone, so codes are repeatable.
        """
        pending: deque[_Pending] = deque()
        batches: dict[torch.Size, list[tuple[_Pending, int, Tensor]]] = {}
        loading: deque[tuple[_Pending, int, Future[Loaded]]] = deque()
        with ThreadPoolExecutor(workers, initializer=self._prepare_thread) as pool:
            for sample in samples:
                pending.append(self._submit(sample, pool, loading))
                while len(loading) > 2 * self.batch_size:
                    self._collect(loading.popleft(), batches)
                while pending and pending[0].is_done:
                    yield pending.popleft().result()
            while loading:
                self._collect(loading.popleft(), batches)
            for batch in batches.values():
                self._encode_batch(batch)
        yield from (each.result() for each in pending)

    def _prepare_thread(self) -> None:
        """Beside a GPU, threads that each start one per core would get into each other's way."""
        if self.tokenizer.device.type != "cpu":
            torch.set_num_threads(1)

    def _submit(
        self,
        sample: RawSample | BadSample,
        pool: ThreadPoolExecutor,
        loading: deque[tuple[_Pending, int, Future[Loaded]]],
    ) -> _Pending:
        if isinstance(sample, BadSample):
            return _Pending(sample)
        # Pictures in bytes are let go of once they are decoded.
        entry = _Pending(replace(sample, pictures=()))
        for place, picture in enumerate(sample.pictures):
            if isinstance(picture, PictureCodes):
                entry.codes.append(picture)
            else:
                entry.codes.append(None)
                loading.append((entry, place, pool.submit(self._load, picture)))
        return entry

    def _load(self, picture: Path | bytes) -> Loaded:
        size = self.tokenizer.config.image_size
        return pixels_or_reason(picture, partial(preprocess, recipe=self.recipe, image_size=size))

    def _collect(
        self,
        job: tuple[_Pending, int, Future[Loaded]],
        batches: dict[torch.Size, list[tuple[_Pending, int, Tensor]]],
    ) -> None:
        entry, place, future = job
        loaded = future.result()
        if isinstance(entry.sample, BadSample):
            return
        if isinstance(loaded, str):
            entry.sample = BadSample(entry.sample.id, loaded)
            return
        batch = batches.setdefault(loaded.shape, [])
        batch.append((entry, place, loaded))
        if len(batch) == self.batch_size:
            self._encode_batch(batch)

    def _encode_batch(self, batch: list[tuple[_Pending, int, Tensor]]) -> None:
        """Encode the pictures of one size and give their codes to the samples."""
        if not batch:
            return
        pixels = torch.cat([pixels for _, _, pixels in batch])
        remedy = "set a smaller batch_size"
        with torch.inference_mode(), explain_out_of_memory(f"encoding {len(batch)}", remedy):
            codes_BLK = self.tokenizer.encode(pixels.to(self.tokenizer.device)).cpu()
        grid = self.tokenizer.grid(pixels)
        for (entry, place, _), codes_LK in zip(batch, codes_BLK, strict=True):
            entry.codes[place] = PictureCodes(codes_LK, grid)
        batch.clear()
