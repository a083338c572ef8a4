"""Eight samples of each task are learned by heart and come back exactly."""

import itertools

import pytest
import torch

from eval.scene_questions import Question
from eval.scene_scores import answer_questions
from mllm.pipeline import Pipeline
from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.mllm.tiny_text import COLORS, SHAPES
from tests.train.test_mllm import build_config
from tests.train.tiny_shards import build_rows, write_rows
from train.code_shards import CodeRow
from train.mllm import run_stage
from train.stage_config import StageConfig

COUNT = 8
STEPS = 400
LOOKS = [f"a {color} {shape}" for color, shape in itertools.product(COLORS, SHAPES)][:COUNT]
QUESTION = "what color is the star?"


def with_text(row: CodeRow, text: str) -> CodeRow:
    """The row with a text of its own, so that there is something to tell apart."""
    if row.task != "chat":
        return CodeRow(row.id, row.task, (text,), None, row.pictures, row.source)
    image = {"type": "image", "text": ""}
    messages = [
        {"role": "user", "content": [image, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": text}]},
    ]
    return CodeRow(row.id, row.task, (), messages, row.pictures[:1], row.source)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[CodeRow]]:
    pipeline = build_tiny_pipeline()
    return {
        task: [
            with_text(row, text)
            for row, text in zip(
                build_rows(pipeline, task, count=COUNT, seed=seed), LOOKS, strict=True
            )
        ]
        for seed, task in enumerate(("image_to_text", "text_to_image", "chat"))
    }


@pytest.fixture(scope="module")
def trained(rows: dict[str, list[CodeRow]], tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("overfit")
    pipeline = build_tiny_pipeline()
    pipeline.save_pretrained(folder / "start")
    materials = {task: write_rows(folder / task, own, pipeline) for task, own in rows.items()}
    values = build_config({"start": folder / "start", **materials}, folder / "run").model_dump()
    values["data"] |= {
        "num_samples": 3 * COUNT * STEPS,
        "validation": (),
        "rows": {"max_length": 96, "unconditional_share": 0.0},
    }
    values["batch"] = {"samples_per_pack": 3 * COUNT, "accumulation": 1}
    values["optim"] |= {"lr": 1e-2, "warmup_share": 0.05}
    values["watch"] |= {"samples": None, "save_every": STEPS, "log_every": STEPS // 4}
    assert run_stage(StageConfig.model_validate(values))
    return Pipeline.from_pretrained(folder / "run" / "model", device="cpu")


def codes_of(rows: list[CodeRow]) -> torch.Tensor:
    return torch.stack([row.pictures[0].codes for row in rows])


def test_drawings_come_back_exactly(trained: Pipeline, rows: dict[str, list[CodeRow]]) -> None:
    drawn = trained.generate_images(LOOKS, num_images=1, temperature=0, guidance_scale=1)
    learned = trained.decode(codes_of(rows["text_to_image"]))
    assert [picture.tobytes() for picture in drawn] == [picture.tobytes() for picture in learned]


def test_answers_come_back_exactly(trained: Pipeline, rows: dict[str, list[CodeRow]]) -> None:
    asked = [Question("color", QUESTION, text) for text in LOOKS]
    assert answer_questions(trained, asked, codes_of(rows["chat"])) == LOOKS
