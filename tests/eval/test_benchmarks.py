"""Options of benchmarks, from their text on the command line to what scorers take."""

from pathlib import Path

import pytest

from eval.benchmarks import load_benchmark, parse_options, question_options, text_options


def test_a_split_chooses_the_questions_and_how_they_are_scored():
    vqav2 = load_benchmark("vqav2")
    options = parse_options(vqav2, ["split=val", "answered_only=true"])
    assert options["split"].value == "val"
    assert options["answered_only"] is True
    assert question_options(vqav2, options) == {"split": options["split"]}


def test_a_file_comes_as_a_path():
    assert parse_options(load_benchmark("mmvet"), ["grades=g.json"]) == {"grades": Path("g.json")}


def test_objects_without_a_text_form_are_no_options():
    assert "grader" not in text_options(load_benchmark("mmvet"))


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"'split=dev' does not fit vqav2: .*test-dev"):
        parse_options(load_benchmark("vqav2"), ["split=dev"])
