"""Folders of pictures: drawn once, batched, shared out, and never mixed from other settings."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.file_hashes import hash_lines
from eval.picture_folder import (
    SETTINGS_FILE,
    DrawingPlan,
    PictureJob,
    describe_drawing,
    draw_missing,
    read_generation,
)
from eval.result_folder import begin_folder
from mllm.generation import set_default_sampling
from mllm.sampling import SamplingParams
from mllm.share import Share
from tests.mllm.tiny_pipeline import build_tiny_pipeline

PROMPTS = ("a star", "a red circle left of a blue square", "two dots")


@pytest.fixture(scope="module")
def pipeline():
    return build_tiny_pipeline()


@pytest.fixture
def jobs(tmp_path):
    return [
        PictureJob(tmp_path / f"{number}" / "a.png", prompt, seed=10 + number)
        for number, prompt in enumerate(PROMPTS)
    ]


def draw(pipeline, jobs, *, batch_size=2, rounding="round", **options):
    plan = DrawingPlan(pipeline.build_sampling(), rounding, batch_size)
    return draw_missing(pipeline, jobs, plan=plan, **options)


def contents(jobs):
    return [job.path.read_bytes() for job in jobs if job.path.exists()]


def test_each_picture_is_that_of_its_prompt_and_seed(pipeline, jobs):
    assert draw(pipeline, jobs) == 3
    for job in jobs:
        [alone] = pipeline.generate_images(job.prompt, num_images=1, seed=job.seed)
        assert Image.open(job.path).tobytes() == alone.tobytes()


def test_only_missing_pictures_are_drawn_and_they_come_out_the_same(pipeline, jobs):
    draw(pipeline, jobs)
    complete = contents(jobs)
    kept = jobs[0].path.stat().st_mtime_ns
    jobs[1].path.unlink()
    seen = []
    assert draw(pipeline, jobs, batch_size=1, count_done=seen.append) == 1
    assert contents(jobs) == complete
    assert jobs[0].path.stat().st_mtime_ns == kept
    assert seen == [1]


def test_a_run_that_breaks_off_leaves_no_half_picture(pipeline, jobs, monkeypatch):
    def fail(self, data):
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        draw(pipeline, jobs)
    assert list(jobs[0].path.parent.iterdir()) == []


def test_a_batch_is_drawn_as_a_whole_whatever_is_missing(pipeline, jobs, monkeypatch):
    draw(pipeline, jobs)
    jobs[0].path.unlink()
    batches = []
    drawn = pipeline.generate_images
    monkeypatch.setattr(
        pipeline,
        "generate_images",
        lambda prompts, **options: batches.append(prompts) or drawn(prompts, **options),
    )
    assert draw(pipeline, jobs) == 1
    assert batches == [list(PROMPTS[:2])]


def test_processes_draw_a_share_of_the_batches_each(pipeline, jobs):
    assert draw(pipeline, jobs, share=Share(1, 2)) == 1
    assert [job.path.exists() for job in jobs] == [False, False, True]
    assert draw(pipeline, jobs, share=Share(0, 2)) == 2
    shared = contents(jobs)
    for job in jobs:
        job.path.unlink()
    draw(pipeline, jobs)
    assert contents(jobs) == shared


def test_truncated_pixels_are_at_most_one_level_below_rounded_ones(pipeline, jobs, tmp_path):
    draw(pipeline, jobs[:1])
    truncated = PictureJob(tmp_path / "truncated.png", jobs[0].prompt, jobs[0].seed)
    draw(pipeline, [truncated], rounding="truncate")
    difference = np.asarray(Image.open(jobs[0].path), int) - np.asarray(Image.open(truncated.path))
    assert set(np.unique(difference)) == {0, 1}


def test_a_prompt_that_cannot_be_drawn_is_refused_before_the_first_picture(pipeline, jobs):
    jobs[-1] = PictureJob(jobs[-1].path, " ", 0)
    with pytest.raises(ValueError, match="the prompt is empty"):
        draw(pipeline, jobs, batch_size=1)
    assert contents(jobs) == []


def test_sampling_that_the_pipeline_would_not_follow_is_refused(jobs):
    pipeline = build_tiny_pipeline()
    set_default_sampling(pipeline.model, SamplingParams(top_k=5))
    with pytest.raises(ValueError, match=r"would draw with .*top_k=5.*set every value"):
        draw_missing(pipeline, jobs, plan=DrawingPlan(SamplingParams()))


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        DrawingPlan(SamplingParams(), batch_size=0)


def test_settings_say_what_decides_a_picture(pipeline):
    plan = DrawingPlan(SamplingParams(guidance_scale=2.0), batch_size=8)
    settings = describe_drawing(pipeline, plan, texts=PROMPTS, benchmark="genai", seed=3)
    assert settings == {
        "benchmark": "genai",
        "seed": 3,
        "prompts_sha256": hash_lines(PROMPTS),
        "sampling": {"guidance_scale": 2.0, "temperature": 1.0, "top_k": None, "top_p": None},
        "rounding": "round",
        "batch_size": 8,
        "image_size": 32,
        "device": "cpu",
        "dtype": "float32",
        **pipeline.fingerprints(),
    }


def test_a_score_learns_how_its_pictures_were_drawn(pipeline, tmp_path):
    assert read_generation(tmp_path, PROMPTS) is None
    plan = DrawingPlan(pipeline.build_sampling())
    settings = describe_drawing(pipeline, plan, texts=PROMPTS, benchmark="genai", seed=3)
    begin_folder(tmp_path, settings, file=SETTINGS_FILE)
    assert read_generation(tmp_path, PROMPTS) == settings
    with pytest.raises(ValueError, match="were drawn for other prompts than these"):
        read_generation(tmp_path, PROMPTS[:2])
