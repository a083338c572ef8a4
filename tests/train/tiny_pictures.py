"""Small pictures with captions of every kind, and the batches that a training makes of them."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tests.train.tiny_sources import png, write_pictures, write_tar
from train.picture_config import TokenizerDataConfig
from train.tokenizer_data import TokenizerBatch, TokenizerData
from unitok.config import PRESETS
from unitok.text import build_text_tokenizer

NANO = PRESETS["nano"]
SCENES = {"kind": "scenes"}
EVERY_CHANCE = {"scale": (0.3, 1.0), "flip": 0.5}


def write_folder(folder: Path, count: int = 6) -> dict[str, Any]:
    write_pictures(folder, count)
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"caption {number}\n")
    return {"kind": "folder", "path": folder}


def build_data(source: dict[str, Any], *, crop: dict[str, Any] | None = None, **settings: Any):
    config = TokenizerDataConfig.model_validate({"source": source, "crop": crop or {}})
    return TokenizerData(
        config, **{"model_config": NANO, "batch_size": 4, "num_workers": 0, **settings}
    )


def take(data: TokenizerData, count: int, *, first: int = 0) -> list[TokenizerBatch]:
    return list(islice(data.batches(first), count))


def join(batches: list[TokenizerBatch]) -> TokenizerBatch:
    return TokenizerBatch(
        torch.cat([batch.pixels for batch in batches]),
        torch.cat([batch.text_ids for batch in batches]),
        torch.cat([batch.seeds for batch in batches]),
    )


def assert_same(first: list[TokenizerBatch], second: list[TokenizerBatch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.text_ids, b.text_ids)
        assert torch.equal(a.seeds, b.seeds)


def sample_files(number: int) -> dict[str, bytes]:
    return {f"{number:04d}.png": png(number), f"{number:04d}.txt": f"caption {number}".encode()}


def write_shards(folder: Path, sizes: Sequence[int], **settings: Any) -> dict[str, Any]:
    """00000.tar, ... with so many samples, numbered through."""
    folder.mkdir(exist_ok=True)
    first = 0
    for shard, size in enumerate(sizes):
        members: dict[str, bytes] = {}
        for number in range(first, first + size):
            members |= sample_files(number)
        write_tar(folder / f"{shard:05d}.tar", members)
        first += size
    urls = str(folder / f"{{00000..{len(sizes) - 1:05d}}}.tar")
    return {"kind": "webdataset", "urls": urls, **settings}


def numbers(batches: Sequence[TokenizerBatch]) -> list[int]:
    """Those in the captions of all samples, one behind the other."""
    tokenizer = build_text_tokenizer(NANO.text_vocab_size, NANO.text_context_length)
    texts = [tokenizer.decode(row) for batch in batches for row in batch.text_ids.tolist()]
    return [int("".join(filter(str.isdigit, text))) for text in texts]
