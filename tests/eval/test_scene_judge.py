"""Drawn scenes through GenEval's code: the same verdicts as the nano scores, colours included."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.geneval_judge import JudgeChoice
from eval.geneval_results import Sample
from eval.geneval_rules import Detection, parse_metadata
from eval.inspector import inspect
from eval.scene_judge import Inspector, InspectorColors, judge_drawing
from eval.scene_text import held_out_prompts, scene_matching
from eval.scenes import render


def test_verdicts_equal_those_of_the_nano_scores(tmp_path: Path) -> None:
    prompts = held_out_prompts(3)
    judge = JudgeChoice(detector="inspector").load()
    verdicts = []
    for number, prompt in enumerate(prompts):
        # Every third picture shows another prompt's scene.
        shown = prompts[number - 7] if number % 3 == 2 else prompt
        pixels = render(scene_matching(shown, random.Random(number)), 64)
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        expected = judge_drawing(inspect(pixels), prompt)
        _, result = judge.judge(Sample(path, parse_metadata(prompt), "{}"), path.name)
        assert (result.correct, result.reason) == (expected.correct, expected.reason)
        verdicts.append(result.correct)
    assert sum(verdicts) == 12


def test_the_inspector_is_named_by_what_it_depends_on() -> None:
    assert Inspector.name == "inspector"
    assert len(Inspector().fingerprint) == 16
    assert InspectorColors().name == f"inspector {Inspector().fingerprint}"


def test_another_detectors_box_has_the_colour_of_the_object_there() -> None:
    prompt = next(prompt for prompt in held_out_prompts(1) if prompt["tag"] == "color_attr")
    pixels = render(scene_matching(prompt, random.Random(0)), 64)
    for item in inspect(pixels):
        left, top, right, bottom = item.box
        near = Detection((left - 1, top + 1, right + 1, bottom - 1), 0.5)
        assert InspectorColors().classify(Image.fromarray(pixels), item.shape, [near]) == [
            item.color
        ]


def test_a_box_of_nothing_has_no_colour() -> None:
    image = Image.fromarray(np.full((64, 64, 3), 160, np.uint8))
    with pytest.raises(ValueError, match="sees nothing at the star in box"):
        InspectorColors().classify(image, "star", [Detection((1, 1, 9, 9), 0.5)])
