"""Options of benchmarks, from their text on the command line to what scorers take."""

from pathlib import Path

import pytest

from eval.benchmarks import (
    load_benchmark,
    parse_options,
    submission_name,
    taken_options,
    text_options,
)


def test_a_split_chooses_the_questions_and_how_they_are_scored():
    vqav2 = load_benchmark("vqav2")
    options = parse_options(vqav2, ["split=val", "answered_only=true"])
    assert options["split"].value == "val"
    assert options["answered_only"] is True
    assert taken_options(vqav2.load_questions, options) == {"split": options["split"]}


@pytest.mark.parametrize(
    ("benchmark", "name"),
    [
        ("vqav2", "submission.json"),
        ("mme", "submission"),  # a folder
        ("mmbench", "submission.xlsx"),
        ("seed", "submission.jsonl"),
        ("pope", None),
    ],
)
def test_submissions_are_called_by_their_format(benchmark, name):
    assert submission_name(load_benchmark(benchmark)) == name


def test_a_file_comes_as_a_path():
    assert parse_options(load_benchmark("mmvet"), ["grades=g.json"]) == {"grades": Path("g.json")}


def test_objects_without_a_text_form_are_no_options():
    assert "grader" not in text_options(load_benchmark("mmvet"))


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"'split=dev' does not fit vqav2: .*test-dev"):
        parse_options(load_benchmark("vqav2"), ["split=dev"])


def test_a_value_that_is_no_yaml_is_refused():
    with pytest.raises(ValueError, match=r"'split=\[' does not fit vqav2: it is no YAML"):
        parse_options(load_benchmark("vqav2"), ["split=["])
