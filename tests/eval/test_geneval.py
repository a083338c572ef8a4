"""`python -m eval.geneval score`, `compare` and `convert-detector` on pictures of known content."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from eval.detections import DetectionFile
from eval.geneval import app
from eval.geneval_judge import JudgeChoice, JudgingTask
from eval.geneval_results import ImageResult, find_samples, summarize
from eval.geneval_rules import COLORS
from eval.geneval_scoring import find_sources, is_current
from eval.mask2former import Mask2FormerDetector
from eval.report import BenchmarkReport, read_report
from tests.eval.detector_goldens import make_weights
from tests.eval.geneval_folders import CASES, write_known, write_pictures
from tests.eval.tiny_clip import TINY, save_tiny_clip
from unitok.image import load_image

RESULT_FILES = ("detections.jsonl", "results.jsonl", "summary.json", "report.html", "report.json")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def read_results(folder: Path) -> list[ImageResult]:
    lines = (folder / "results.jsonl").read_text().splitlines()
    return [ImageResult(**json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(CASES, tmp_path_factory.mktemp("geneval") / "images")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_known(CASES, tmp_path_factory.mktemp("known") / "known.jsonl")


@pytest.fixture(scope="module")
def scored(images: Path, known: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "results"
    output = succeed("score", images, "-o", folder, "--detections", known)
    assert "geneval-own overall 0.50000, judged by known (beef)" in output
    return folder


@pytest.fixture(scope="module")
def report(scored: Path) -> BenchmarkReport:
    return read_report(scored / "report.json")


def test_known_objects_get_the_verdicts_that_the_rules_demand(scored: Path) -> None:
    assert [(result.correct, result.reason) for result in read_results(scored)] == [
        (not reason, reason) for case in CASES for reason in case.reasons
    ]


def test_the_report_has_scores_items_and_who_judged(scored: Path, report: BenchmarkReport) -> None:
    assert report.benchmark == "geneval-own"
    assert report.headline == ("overall", 0.5)
    assert [(group.group, group.score) for group in report.groups] == [
        (case.metadata["tag"], 0.5) for case in CASES
    ]
    assert report.counts.num_items == 12
    assert report.items[1].item_id == "00000/samples/0001.png"
    assert report.items[1].details["reason"] == "expected dog>=1, found 0"
    assert report.settings["detector"] == "known"
    assert report.settings["detector_fingerprint"] == "beef"
    assert report.settings["colors"] == "a hand"
    assert report.settings["options"]["counting_threshold"] == 0.9
    assert report.settings["generation"]["model"] == "a painter"
    assert report.settings["is_complete"] is True


def test_the_summary_is_the_official_one_with_who_judged(scored: Path) -> None:
    summary = json.loads((scored / "summary.json").read_text())
    official = summarize(read_results(scored)).report()
    assert official["overall"] == "0.50000"
    assert {key: summary[key] for key in official} == official
    assert summary["detector"] == "known"


def test_stored_detections_are_scored_again_with_the_same_verdicts(
    images: Path, scored: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    succeed("score", images, "-o", again, "--detections", scored / "detections.jsonl")
    for name in RESULT_FILES[:4]:
        if name != "report.html":  # its links are relative
            assert (again / name).read_bytes() == (scored / name).read_bytes()


def test_official_options_change_verdicts_and_are_reported(
    images: Path, known: Path, tmp_path: Path
) -> None:
    succeed("score", images, "-o", tmp_path, "--detections", known, "--options", "threshold=0.96")
    report = read_report(tmp_path / "report.json")
    assert report.settings["options"]["threshold"] == 0.96
    # Only counting keeps its own threshold.
    assert {group.group: group.score for group in report.groups}["counting"] == 0.5
    assert report.metrics["overall"] == pytest.approx(0.5 / 6)


def test_an_incomplete_folder_is_refused_unless_it_is_to_be_labelled(
    known: Path, tmp_path: Path
) -> None:
    images = write_pictures(CASES, tmp_path / "images")
    (images / "00002" / "samples" / "0001.png").unlink()
    result = invoke("score", images, "-o", tmp_path / "results", "--detections", known)
    assert result.exit_code == 1
    assert (
        "is not complete, 11 of 12 pictures: folders without exactly 2 pictures: 1, such"
        in result.output
    )
    output = succeed(
        "score", images, "-o", tmp_path / "results", "--detections", known, "--partial"
    )
    report = read_report(tmp_path / "results" / "report.json")
    assert report.benchmark == "geneval-own-partial"
    assert report.counts.num_missing == 1
    assert report.settings["is_complete"] is False
    assert report.notes[0].startswith("partial: 11 of 12 pictures were scored")
    assert "geneval-own-partial overall" in output
    assert '"is_complete": false' in (tmp_path / "results" / "summary.json").read_text()
    assert "<h1>geneval-own-partial: " in (tmp_path / "results" / "report.html").read_text()


def test_a_folder_that_lacks_prompts_is_incomplete(known: Path, tmp_path: Path) -> None:
    images = write_pictures(CASES[:5], tmp_path / "images")
    full = write_pictures(CASES, tmp_path / "full")
    (images / "generation.json").write_bytes((full / "generation.json").read_bytes())
    result = invoke("score", images, "-o", tmp_path / "results", "--detections", known)
    assert "10 of 12 pictures: its 5 prompts are not the 6 own ones" in result.output


def test_pictures_of_other_makers_must_answer_the_official_prompts(
    known: Path, tmp_path: Path
) -> None:
    images = write_pictures(CASES, tmp_path / "images")
    (images / "generation.json").unlink()
    result = invoke("score", images, "-o", tmp_path / "results", "--detections", known)
    assert "12 of 2212 pictures: its 6 prompts are not the 553 official ones" in result.output


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_resumed_run_ends_like_an_undisturbed_one(
    images: Path, known: Path, scored: Path, tmp_path: Path, num_processes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    command = ("score", images, "-o", tmp_path, "--detections", known)

    def run_five(self: JudgingTask, share: object, count_done: object) -> None:
        original(JudgingTask(self.image_dir, self.parts, self.samples[:5], self.choice, self.judge),
                 share, count_done)  # fmt: skip
        raise RuntimeError("killed")

    original = JudgingTask.run
    with monkeypatch.context() as patch:
        patch.setattr(JudgingTask, "run", run_five)
        assert "killed" in invoke(*command).output
    assert not (tmp_path / "report.json").exists()
    assert len(list((tmp_path / "parts").glob("*/samples/*"))) == 5
    assert "judging 7 of 12 pictures" in succeed(*command, "--num-processes", num_processes)
    for name in set(RESULT_FILES) - {"report.html"}:
        assert (tmp_path / name).read_bytes() == (scored / name).read_bytes()
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize("name", ["picture", "metadata", "detections"])
def test_a_record_older_than_what_it_was_made_from_is_made_again(
    images: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(images, tmp_path / "images")
    known = write_known(CASES, tmp_path / "known.jsonl")
    sample = find_samples(tmp_path / "images")[0]
    sources = find_sources(sample, JudgeChoice(detections=known))
    for source in sources:
        os.utime(source, ns=(1, 1))
    part = tmp_path / "part.jsonl"
    assert not is_current(part, sources)
    part.write_text("{}")
    os.utime(part, ns=(1, 1))
    assert is_current(part, sources)
    metadata = sample.path.parent.parent / "metadata.jsonl"
    os.utime({"picture": sample.path, "metadata": metadata, "detections": known}[name], ns=(2, 2))
    assert not is_current(part, sources)


def test_an_unfinished_run_of_another_detector_is_refused(
    images: Path, known: Path, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "judge.json").write_text('{"detector": "another"}')
    command = ("score", images, "-o", tmp_path, "--detections", known)
    result = invoke(*command)
    assert result.exit_code == 1
    assert "parts was begun with detector another, got known" in result.output
    assert "pass --force" in result.output
    succeed(*command, "--force")


def test_finished_results_are_not_replaced_without_force(
    images: Path, known: Path, scored: Path
) -> None:
    result = invoke("score", images, "-o", scored, "--detections", known)
    assert result.exit_code == 1
    assert "report.json exists already; pass --force" in result.output


def test_a_picture_without_detections_is_named(images: Path, tmp_path: Path) -> None:
    known = write_known(CASES[:3], tmp_path / "known.jsonl")
    result = invoke("score", images, "-o", tmp_path / "results", "--detections", known)
    assert result.exit_code == 1
    assert "00003/samples/0000.png" in result.output


def test_colours_that_are_not_stored_are_never_guessed(images: Path, tmp_path: Path) -> None:
    known = write_known(CASES, tmp_path / "known.jsonl")
    known.write_text(
        known.read_text().replace('"colors": ["green", "red"]', '"colors": [null, "red"]')
    )
    result = invoke("score", images, "-o", tmp_path / "results", "--detections", known)
    assert result.exit_code == 1
    assert "00003/samples/0000.png: no colour is stored for a dog" in result.output


def test_a_detector_or_its_detections_must_be_given(images: Path, tmp_path: Path) -> None:
    result = invoke("score", images, "-o", tmp_path)
    assert result.exit_code == 1
    assert "give either a detector to run (--detector) or a file" in result.output


def test_two_detectors_are_compared_picture_by_picture(
    images: Path, known: Path, tmp_path: Path
) -> None:
    blind = list(CASES)
    # Sees neither the dog of the first picture nor the third dog that spoils "two dogs".
    for number, place, keep in ((0, 0, 0), (2, 1, 2)):
        pictures = [list(things) for things in blind[number].pictures]
        pictures[place] = pictures[place][:keep]
        blind[number] = type(blind[number])(blind[number].metadata, pictures, [])
    other = write_known(blind, tmp_path / "other.jsonl", name="blind")
    command = ("compare", known, other, "--images", images, "-o", tmp_path / "agreement.json")
    output = succeed(*command)
    assert "00000/samples/0000.png: a photo of a <dog> & a half" in output
    assert "  known: correct\n  blind: wrong, expected dog>=1, found 0" in output
    assert "A: known (beef)\nB: blind (beef)\n" in output
    assert re.search("┃ task +┃ images +┃ +A ┃ +B ┃ equal verdicts ┃", output)
    content = json.loads((tmp_path / "agreement.json").read_text())
    rows = {row["task"]: row for row in content["tasks"]}
    assert rows["overall"]["num_images"] == 12
    assert rows["overall"]["num_equal"] == 10
    assert rows["overall"]["share_equal"] == pytest.approx(10 / 12)
    assert rows["overall"]["scores"] == pytest.approx([0.5, (0 + 0.5 + 1 + 0.5 + 0.5 + 0.5) / 6])
    assert rows["counting"]["scores"] == [0.5, 1.0]
    assert rows["position"]["share_equal"] == 1
    assert [each["image"] for each in content["differences"]] == [
        "00000/samples/0000.png",
        "00002/samples/0001.png",
    ]
    assert content["differences"][1]["reasons"] == ["expected dog<3, found 3", ""]
    assert "exists already" in invoke(*command).output


def test_a_long_name_and_hash_are_printed_whole(
    images: Path, known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    header, lines = known.read_text().split("\n", 1)
    fingerprint = "0123456789abcdef" * 4
    named = {**json.loads(header), "detector": "mask2former_swin-s", "fingerprint": fingerprint}
    (tmp_path / "other.jsonl").write_text(f"{json.dumps(named)}\n{lines}")
    output = succeed("compare", known, tmp_path / "other.jsonl", "--images", images)
    assert f"B: mask2former_swin-s ({fingerprint})\n" in output
    assert "…" not in output


def test_clip_names_the_colours_of_detections_that_have_none(
    images: Path, known: Path, tmp_path: Path
) -> None:
    weights = save_tiny_clip(tmp_path)
    options = ("--colors", weights, "--options", f"clip_model={TINY}", "--options", "bgcolor=#000")
    succeed("score", images, "-o", tmp_path / "once", "--detections", known, *options)
    report = read_report(tmp_path / "once" / "report.json")
    assert str(report.settings["colors"]).startswith(f"CLIP {TINY} ")
    header, *lines = map(json.loads, (tmp_path / "once/detections.jsonl").read_text().splitlines())
    assert header["color_classifier"] == report.settings["colors"]
    # Only the most confident dog is looked at; the colour stored for it before is not believed.
    first, second = lines[6]["detections"]["dog"]["colors"]
    assert first in COLORS
    assert second is None
    assert "colors" not in lines[0]["detections"]["dog"]
    # What CLIP said is stored, so it is not needed again.
    again = ("--detections", tmp_path / "once" / "detections.jsonl")
    succeed("score", images, "-o", tmp_path / "again", *again)
    results = [(tmp_path / name / "results.jsonl").read_text() for name in ("once", "again")]
    assert results[0] == results[1]


@pytest.mark.slow  # a network of full size looks at pictures of 800 pixels
def test_the_converted_detector_judges_a_folder(tmp_path: Path) -> None:
    checkpoint = tmp_path / "detector.pth"
    torch.save({"state_dict": make_weights()}, checkpoint)
    succeed("convert-detector", checkpoint, "-o", tmp_path / "detector")
    images = write_pictures(CASES[:1], tmp_path / "images")
    command = ("score", images, "-o", tmp_path / "results")
    succeed(*command, "--detector", tmp_path / "detector", "--device", "cpu")
    detector = Mask2FormerDetector.from_pretrained(tmp_path / "detector")
    report = read_report(tmp_path / "results" / "report.json")
    assert report.settings["detector"] == detector.name
    assert report.settings["detector_fingerprint"] == detector.fingerprint
    stored = DetectionFile(tmp_path / "results" / "detections.jsonl")
    for key in stored.images:
        assert stored.read(key).detections == detector.detect(load_image(images / key))
    again = ("score", images, "-o", tmp_path / "again", "--detections")
    succeed(*again, tmp_path / "results" / "detections.jsonl")
    results = [(tmp_path / name / "results.jsonl").read_text() for name in ("results", "again")]
    assert results[0] == results[1]


def test_a_missing_checkpoint_of_the_detector_is_one_sentence(tmp_path: Path) -> None:
    result = invoke("convert-detector", tmp_path / "no.pth", "-o", tmp_path / "detector")
    assert result.exit_code == 1
    assert "no.pth" in result.output
