"""Code shards of test size with random codes, one folder per task."""

import random
from pathlib import Path

import torch

from mllm.pipeline import Pipeline
from train.code_shards import (
    SHARDS_FOLDER,
    CodeOrigin,
    CodeRow,
    PictureCodes,
    Shard,
    write_manifest,
    write_shard,
)

TEXTS = ("a red star", "a blue circle left of a green square", "a black star")


def build_rows(pipeline: Pipeline, task: str, *, count: int, seed: int = 0) -> list[CodeRow]:
    """Rows of one task; a chat shows a picture, is asked about it and draws another."""
    generator = torch.Generator().manual_seed(seed)
    config = pipeline.model.config
    shape = (config.num_visual_tokens, config.num_codebooks)

    def picture() -> PictureCodes:
        codes = torch.randint(0, config.codebook_size, shape, generator=generator)
        return PictureCodes(codes, (config.grid[0], config.grid[1]))

    num_pictures = {"text": 0, "chat": 2}.get(task, 1)
    return [
        CodeRow(
            id=f"{task}-{number}",
            task=task,
            texts=() if task == "chat" else (random.Random(f"{seed}:{number}").choice(TEXTS),),
            messages=chat() if task == "chat" else None,
            pictures=tuple(picture() for _ in range(num_pictures)),
            source=task,
        )
        for number in range(count)
    ]


def chat() -> list[dict]:
    image = {"type": "image", "text": ""}
    asked = [image, {"type": "text", "text": "what color is the star?"}]
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        {"role": "user", "content": [{"type": "text", "text": "a blue star"}]},
        {"role": "assistant", "content": [image]},
    ]


def write_rows(folder: Path, rows: list[CodeRow], pipeline: Pipeline) -> Path:
    """A finished folder of one shard with these rows."""
    (folder / SHARDS_FOLDER).mkdir(parents=True)
    file = f"{SHARDS_FOLDER}/part.parquet"
    per_task = {task: sum(row.task == task for row in rows) for task in {row.task for row in rows}}
    shard = Shard(file, "test", per_task, write_shard(folder / file, rows))
    config = pipeline.model.config
    origin = CodeOrigin(pipeline.tokenizer.fingerprint, config.num_codebooks, config.codebook_size)
    write_manifest(folder, origin, [shard], num_bad_samples=0)
    return folder


def write_tasks(folder: Path, pipeline: Pipeline, *, count: int = 6) -> dict[str, Path]:
    """One folder for each task."""
    return {
        task: write_rows(folder / task, build_rows(pipeline, task, count=count), pipeline)
        for task in ("image_to_text", "text_to_image", "text", "chat")
    }
