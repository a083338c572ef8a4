"""`python -m eval.geneval generate` and `run`: the same pictures however often it was stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from eval.geneval import app
from eval.geneval_pictures import PictureKey
from eval.geneval_prompts import drawn_prompts
from eval.geneval_results import ImageResult, find_samples
from eval.inspector import inspect
from eval.picture_commands import DrawingTask
from eval.picture_folder import draw_missing
from eval.report import read_report
from eval.scene_judge import judge_drawing
from mllm.pictures import read_notes
from mllm.pipeline import Pipeline
from tests.mllm.tiny_pipeline import build_tiny_pipeline

NUM_PICTURES = 12  # two of one prompt of each task


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def generate(model: Path, output: Path, *changes: object) -> Result:
    return invoke(
        "generate", "drawn", "--per-task", 1, "-n", 2, "--model", model, "--batch-size", 5,
        "-o", output, *changes,
    )  # fmt: skip


def read_pictures(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.png"))
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build_tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "images"
    result = generate(model, folder)
    assert result.exit_code == 0, result.output
    return folder


def test_pictures_lie_in_the_official_folders_with_their_prompts(images: Path) -> None:
    assert len(read_pictures(images)) == NUM_PICTURES
    samples = find_samples(images)
    prompts = [prompt["prompt"] for prompt in drawn_prompts(1).prompts]
    assert [sample.metadata.prompt for sample in samples[::2]] == prompts
    assert samples[3].path == images / "00001" / "samples" / "0001.png"


def test_a_picture_depends_on_its_prompt_and_number_alone(model: Path, images: Path) -> None:
    key = PictureKey(prompt_number=3, number=1)
    prompt = drawn_prompts(1).prompts[3]["prompt"]
    pipeline = Pipeline.from_pretrained(model, device="cpu")
    (alone,) = pipeline.generate_images(prompt, num_images=1, seed=key.seed(0))
    with Image.open(key.path(images)) as picture:
        assert np.array_equal(np.asarray(alone), np.asarray(picture))
    assert read_notes(key.path(images))["seed"] == str(3 + 1_000_000)
    assert read_notes(key.path(images))["prompt"] == prompt


def test_everything_that_a_picture_depends_on_is_recorded(model: Path, images: Path) -> None:
    settings = json.loads((images / "generation.json").read_text())
    assert settings["prompts"] == drawn_prompts(1).describe()
    assert settings["prompts"]["num_prompts"] == 6
    assert settings["num_images"] == 2
    assert settings["sampling"]["guidance_scale"] == 3.0
    assert settings["model_fingerprint"] == build_tiny_pipeline().model.fingerprint
    assert set(settings["versions"]) == {"unitok-mllm", "torch", "transformers"}


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_stopped_run_ends_with_the_same_files(
    model: Path, images: Path, tmp_path: Path, num_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_in_second_batch(self: DrawingTask, share: object, count_done: object) -> None:
        plan = self.drawer.plan(self.pipeline)
        draw_missing(self.pipeline, self.jobs[:10], plan=plan)
        self.jobs[5].path.unlink()
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(DrawingTask, "run", stop_in_second_batch)
        assert "killed" in generate(model, tmp_path / "images").output
    assert len(read_pictures(tmp_path / "images")) == 9
    result = generate(model, tmp_path / "images", "--num-processes", num_processes)
    assert result.exit_code == 0, result.output
    assert "drawing 7 of 12 pictures" in result.output
    assert read_pictures(tmp_path / "images") == read_pictures(images)
    assert "all 12 are in" in generate(model, tmp_path / "images").output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--seed", "1"], "begun with seed 0, got 1"),
        (["--guidance-scale", "2"], "'guidance_scale': 3.0"),
        (["-n", "3"], "begun with num_images 2, got 3"),
        (["--per-task", "2"], "begun with prompts {"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    model: Path, images: Path, changes: list[str], words: str
) -> None:
    before = read_pictures(images)
    result = generate(model, images, *changes)
    assert result.exit_code == 1
    assert "give the same settings to go on" in result.output
    assert words in result.output
    assert read_pictures(images) == before


def test_a_folder_of_something_else_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = generate(model, tmp_path)
    assert result.exit_code == 1
    assert "holds files but no generation.json" in result.output


def test_a_killed_generation_is_no_complete_run(model: Path, images: Path, tmp_path: Path) -> None:
    generate(model, tmp_path / "images")
    (tmp_path / "images" / "00005" / "samples" / "0001.png").unlink()
    command = ("score", tmp_path / "images", "-o", tmp_path, "--detector", "inspector")
    assert "11 of 12 pictures" in invoke(*command).output
    assert "geneval-drawn-partial overall" in succeed(*command, "--partial")


def test_drawn_scenes_run_through_generation_and_judging(model: Path, tmp_path: Path) -> None:
    command = (
        "run", "drawn", "--per-task", 1, "-n", 2, "--model", model, "-o", tmp_path,
        "--detector", "inspector",
    )  # fmt: skip
    assert "geneval-drawn overall" in succeed(*command)
    report = read_report(tmp_path / "report.json")
    assert report.benchmark == "geneval-drawn"
    assert report.counts.num_items == NUM_PICTURES
    assert report.settings["generation"]["model"] == str(model)
    assert (tmp_path / "report.html").read_text().count("<figure") == NUM_PICTURES
    verdicts = [
        ImageResult(**json.loads(line))
        for line in (tmp_path / "results.jsonl").read_text().splitlines()
    ]
    for verdict in verdicts:
        with Image.open(verdict.filename) as picture:
            expected = judge_drawing(inspect(np.asarray(picture)), json.loads(verdict.metadata))
        assert (verdict.correct, verdict.reason) == (expected.correct, expected.reason)
    assert "exists already" in invoke(*command).output


def test_a_limited_run_says_that_it_is_partial(model: Path, tmp_path: Path) -> None:
    command = (
        "run", "drawn", "--per-task", 2, "-n", 1, "--limit", 7, "--model", model, "-o", tmp_path,
        "--detector", "inspector",
    )  # fmt: skip
    said = succeed(*command)
    note = "partial: only 7 of 12 prompts were chosen (--limit): no published score compares"
    assert "geneval-7-of-12-drawn-partial overall" in said
    assert note in said
    report = read_report(tmp_path / "report.json")
    assert report.notes == (note,)
    assert report.settings["is_complete"] is False
    assert report.counts.num_missing == 0
    assert [group.num_items for group in report.groups] == [2, 1, 1, 1, 1, 1]
    assert note in (tmp_path / "report.html").read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["benchmark"], summary["is_complete"]) == (report.benchmark, False)
    (tmp_path / "images" / "00006" / "samples" / "0000.png").unlink()
    again = ("score", tmp_path / "images", "-o", tmp_path / "again", "--detector", "inspector")
    assert "is not complete, 6 of 7 pictures" in invoke(*again).output


def test_the_official_prompts_must_be_fetched_by_the_user(tmp_path: Path) -> None:
    result = invoke("generate", tmp_path / "evaluation_metadata.jsonl", "-o", tmp_path / "images")
    assert result.exit_code == 1
    assert "download GenEval's evaluation_metadata.jsonl from" in result.output
