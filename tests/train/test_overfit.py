"""Eight samples of each task are learned by heart and come back exactly."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mllm.batch_answers import answer_batch
from mllm.generation import set_default_sampling
from mllm.pipeline import Pipeline
from mllm.sampling import SamplingParams
from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.mllm.tiny_text import COLORS, SHAPES
from tests.train.test_mllm import build_config
from tests.train.tiny_shards import build_rows, write_rows
from train.code_shards import CodeRow
from train.mllm import run_stage
from train.mllm_data import with_codes
from train.stage_config import StageConfig

pytestmark = pytest.mark.slow

COUNT = 8
STEPS = 400
TASKS = ("image_to_text", "text_to_image", "text", "chat")
LOOKS = [f"a {color} {shape}" for color, shape in itertools.product(COLORS, SHAPES)][:COUNT]
BESIDE = LOOKS[3:] + LOOKS[:3]
TEXTS = [f"{look} left of {other}" for look, other in zip(LOOKS, BESIDE, strict=True)]
LEARNED = 0.05  # nats of a text id or sub-code; measured 0.004 at most


def with_text(row: CodeRow, number: int) -> CodeRow:
    """The row with a text of its own, so that there is something to tell apart."""
    if row.task != "chat":
        text = TEXTS[number] if row.task == "text" else LOOKS[number]
        return replace(row, texts=(text,))
    assert row.messages is not None
    asked, _, *drawn = row.messages
    answer = {"role": "assistant", "content": [{"type": "text", "text": LOOKS[number]}]}
    return replace(row, messages=[asked, answer, *drawn])


@pytest.fixture(scope="module")
def rows() -> dict[str, list[CodeRow]]:
    """A chat is asked about a picture, answers in text, and then draws another."""
    pipeline = build_tiny_pipeline()
    return {
        task: [
            with_text(row, number)
            for number, row in enumerate(build_rows(pipeline, task, count=COUNT, seed=seed))
        ]
        for seed, task in enumerate(TASKS)
    }


@pytest.fixture(scope="module")
def run(rows: dict[str, list[CodeRow]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overfit")
    pipeline = build_tiny_pipeline()
    pipeline.save_pretrained(folder / "start")
    materials = {task: write_rows(folder / task, own, pipeline) for task, own in rows.items()}
    values = build_config({"start": folder / "start", **materials}, folder / "run").model_dump()
    values["data"] |= {
        "num_samples": len(TASKS) * COUNT * STEPS,
        "validation": (),
        "rows": {"max_length": 96, "unconditional_share": 0.0},
    }
    values["batch"] = {"samples_per_pack": len(TASKS) * COUNT, "accumulation": 1}
    values["optim"] |= {"lr": 1e-2, "warmup_share": 0.05}
    values["watch"] |= {"samples": None, "save_every": STEPS, "log_every": STEPS // 10}
    assert run_stage(StageConfig.model_validate(values))
    return folder / "run"


@pytest.fixture(scope="module")
def trained(run: Path) -> Pipeline:
    """What was learned, without guidance or chance in its drawings."""
    pipeline = Pipeline.from_pretrained(run / "model", device="cpu")
    set_default_sampling(pipeline.model, SamplingParams(guidance_scale=1, temperature=0))
    return pipeline


def codes_of(rows: list[CodeRow]) -> torch.Tensor:
    return torch.stack([row.pictures[-1].codes for row in rows])


def test_nothing_is_left_to_learn_of_any_source(run: Path, trained: Pipeline) -> None:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if "loss" in line][-1]
    losses = {name: loss for name, loss in last.items() if name.startswith("loss/")}
    kinds = {name.removeprefix("loss/") for name in losses if name.count("/") == 2}
    text = {f"text/{task}" for task in TASKS}
    assert kinds == text | {"image/text_to_image", "image/chat"}
    # Which of the texts begins follows from nothing; with that, all of it is known.
    num_learned = [len(trained.processor.encode_text(each)) - 1 for each in TEXTS]
    unknowable = math.log(COUNT) * COUNT / sum(num_learned)
    losses["loss/text/text"] -= unknowable
    assert max(losses[f"loss/{kind}"] for kind in kinds) < LEARNED, losses


def test_drawings_come_back_exactly(trained: Pipeline, rows: dict[str, list[CodeRow]]) -> None:
    drawn = trained.generate_images(LOOKS, num_images=1)
    learned = trained.decode(codes_of(rows["text_to_image"]))
    assert [picture.tobytes() for picture in drawn] == [picture.tobytes() for picture in learned]


def test_captions_come_back_exactly(trained: Pipeline, rows: dict[str, list[CodeRow]]) -> None:
    parts = [{"type": "image", "codes": codes} for codes in codes_of(rows["image_to_text"])]
    prompts = [trained.processor.encode_caption(part) for part in parts]
    assert answer_batch(trained, prompts, max_new_tokens=24) == LOOKS


def test_texts_go_on_as_they_were_learned(trained: Pipeline) -> None:
    model: Any = trained.model
    for look, text in zip(LOOKS, TEXTS, strict=True):
        ids = trained.processor.encode_text(text).input_ids
        start = len(trained.processor.encode_text(look))
        written = model.generate(
            input_ids=ids[None, :start],
            max_new_tokens=len(ids) - start,
            do_sample=False,
            eos_token_id=None,
        )
        assert torch.equal(written[0], ids)


def test_chats_come_back_exactly_turn_by_turn(
    trained: Pipeline, rows: dict[str, list[CodeRow]]
) -> None:
    for row, look in zip(rows["chat"], LOOKS, strict=True):
        question, _, request, _ = with_codes(row)
        answer = trained.chat([question], max_new_tokens=24)
        assert (answer.text, answer.images) == (look, [])
        (part,) = trained.chat([request], history=answer.messages).messages[-1]["content"]
        assert torch.equal(part["codes"], row.pictures[1].codes)
