"""Which files GenEval evaluates, its result lines and its summary."""

import json
from dataclasses import asdict
from operator import itemgetter

import pytest

from eval.geneval_results import (
    ImageResult,
    find_samples,
    image_result,
    is_sample_path,
    summarize,
)
from eval.geneval_rules import Detection, Verdict
from tests.eval.scoring_goldens import load_cases

METADATA = {"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "a cup"}


def write_tree(root, paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
        (root / path).parents[1].joinpath("metadata.jsonl").write_text(json.dumps(METADATA) + "\n")


def test_the_officially_evaluated_files_are_found(tmp_path):
    cases = load_cases("geneval_file_discovery")
    write_tree(tmp_path, [case["path"] for case in cases])
    found = {sample.path.relative_to(tmp_path).as_posix() for sample in find_samples(tmp_path)}
    assert found == {case["path"] for case in cases if case["expected_evaluated"]}
    assert all(is_sample_path(case["path"]) == case["expected_evaluated"] for case in cases)


def test_a_result_line_has_the_official_fields(tmp_path):
    write_tree(tmp_path, ["00000/samples/0000.png"])
    (sample,) = find_samples(tmp_path)
    verdict = Verdict(True, "", {"cup": (Detection((1, 2, 3, 4), 0.5),)})
    assert asdict(image_result(sample, verdict)) == {
        "filename": str(tmp_path / "00000/samples/0000.png"),
        "tag": "single_object",
        "prompt": "a cup",
        "correct": True,
        "reason": "",
        "metadata": json.dumps(METADATA),
        "details": '{"cup": [[1.0, 2.0, 3.0, 4.0, 0.5]]}',
    }


@pytest.mark.parametrize("case", load_cases("geneval_aggregation"), ids=itemgetter("id"))
def test_summaries_equal_the_official_ones(case):
    results = (
        ImageResult("", row["tag"], row["prompt"], row["correct"], "", row["prompt"], "{}")
        for row in case["rows"]
    )
    assert summarize(results).report() == case["expected"]


def test_a_folder_without_metadata_is_named(tmp_path):
    (tmp_path / "00003" / "samples").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"00003/metadata\.jsonl does not exist"):
        find_samples(tmp_path)


def test_a_folder_without_samples_is_named(tmp_path):
    write_tree(tmp_path, ["00003/elsewhere/0.png"])
    with pytest.raises(FileNotFoundError, match="00003 has no samples folder"):
        find_samples(tmp_path)


def test_metadata_of_two_lines_is_named(tmp_path):
    write_tree(tmp_path, ["00003/samples/0.png"])
    (tmp_path / "00003/metadata.jsonl").write_text("{}\n{}\n")
    with pytest.raises(ValueError, match=r"00003/metadata\.jsonl: expected one line of JSON"):
        find_samples(tmp_path)


def test_an_image_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no image to evaluate"):
        find_samples(tmp_path)


def test_a_missing_image_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_samples(tmp_path / "nowhere")


def test_summarizing_nothing_is_an_error():
    with pytest.raises(ValueError, match="no GenEval result"):
        summarize([])
