"""Scores of the drawn world: what a perfect model gets, what the shuffle leaves, who is judged."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from eval import scene_scores
from eval.inspector import inspect
from eval.scene_judge import judge_drawing
from eval.scene_questions import Question
from eval.scene_scores import (
    Rate,
    count_rates,
    is_right,
    num_objects,
    score_drawings,
    score_questions,
    score_reconstruction,
)
from eval.scene_text import TASKS, drawing_prompt, held_out_prompts, scene_matching
from eval.scenes import render
from mllm.pipeline import Pipeline
from tests.mllm.tiny_pipeline import build_tiny_pipeline


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build_tiny_pipeline()


class PerfectPainter:
    """Draws exactly what held-out prompt number i asks for."""

    def __init__(self, num_per_task: int) -> None:
        self.scenes = [
            scene_matching(prompt, random.Random(number))
            for number, prompt in enumerate(held_out_prompts(num_per_task))
        ]

    def generate_images(self, prompts: Sequence[str], **settings: object) -> list[Image.Image]:
        assert len(prompts) == len(self.scenes)
        return [Image.fromarray(render(scene, 64)) for scene in self.scenes]


def test_a_perfect_painter_is_right_and_loses_it_all_by_the_shuffle() -> None:
    by_task, by_count = score_drawings(PerfectPainter(8), num_per_task=8)
    assert by_task["all"].score == 1
    assert by_task["all"].shuffled_score < 0.3
    assert set(by_task) == {"all", *TASKS}
    assert sum(by_count[f"{n} objects"].num_items for n in (2, 3, 4)) + by_count[
        "1 object"
    ].num_items == 8 * len(TASKS)


def test_a_perfect_round_trip_finds_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    class Identity:
        device = torch.device("cpu")

        class config:
            image_size = 64

        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

        def decode(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    rates = score_reconstruction(Identity(), num_items=40)
    assert rates["all"] == Rate(40, 40, 0)
    assert sum(rate.num_items for group, rate in rates.items() if group != "all") == 40


def test_right_answers_count_and_shuffled_pictures_are_asked_about(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[torch.Tensor] = []

    def answer(
        pipe: Pipeline, questions: Sequence[Question], codes: torch.Tensor, **_: object
    ) -> list[str]:
        shown.append(codes)
        is_first = len(shown) == 1
        return [question.answer if is_first else "no idea" for question in questions]

    monkeypatch.setattr(scene_scores, "answer_questions", answer)
    rates = score_questions(pipeline, num_per_kind=3)
    assert rates["all"] == Rate(18, 18, 0)
    assert torch.equal(shown[0][1], shown[1][0])
    assert torch.equal(shown[0][0], shown[1][2])


def test_batched_answers_are_those_of_single_questions(pipeline: Pipeline) -> None:
    questions = [
        Question("color", "what color is the star?", "red"),
        Question("count", "how many objects are there in all of this picture?", "two"),
    ]
    config = pipeline.model.config
    codes = torch.randint(config.codebook_size, (2, config.num_visual_tokens, config.num_codebooks))
    together = scene_scores.answer_questions(pipeline, questions, codes)
    alone = [
        scene_scores.answer_questions(pipeline, [question], codes[i : i + 1])[0]
        for i, question in enumerate(questions)
    ]
    assert together == alone


@pytest.mark.parametrize("task", TASKS)
def test_drawings_of_the_prompt_are_right_and_of_another_scene_wrong(task: str) -> None:
    prompt = drawing_prompt(task, random.Random(3), "held_out")
    picture = render(scene_matching(prompt, random.Random(4)), 64)
    assert judge_drawing(inspect(picture), prompt).correct
    verdict = judge_drawing(inspect(np.full((64, 64, 3), 160, np.uint8)), prompt)
    assert not verdict.correct
    assert verdict.reason.startswith("expected ")


def test_prompts_say_how_many_objects_they_ask_for() -> None:
    assert num_objects({"include": [{"class": "star", "count": 3}]}) == 3
    assert num_objects(drawing_prompt("position", random.Random(0))) == 2


def test_answers_are_compared_as_words() -> None:
    question = Question("existence", "is there a star?", "yes")
    assert is_right(" Yes. ", question)
    assert not is_right("yes it is", question)


def test_rates_are_counted_by_group() -> None:
    rates = count_rates(["b", "a", "b"], [True, False, True], [False, True, False])
    assert rates == {"all": Rate(3, 2, 1), "a": Rate(1, 0, 1), "b": Rate(2, 2, 0)}
    assert rates["b"].score == 1.0
    assert rates["b"].shuffled_score == 0.0
