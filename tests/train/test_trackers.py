"""Curves that a resumed run goes on with, and the samples of a run beside its curves."""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.test_mllm import build_config
from train.mllm import run_stage
from train.samples import SAMPLES_FOLDER
from train.stage_config import StageConfig
from train.trackers import TENSORBOARD_FOLDER, tensorboard_callback

SAMPLED = (2, 3)  # steps: every second one, and the last


def test_steps_after_the_checkpoint_of_a_lost_run_are_shown_once(tmp_path):
    for resumed_at, last, loss in ((0, 6, 1.0), (4, 8, 2.0)):  # lost at step 6, went on from 4
        writer = tensorboard_callback(tmp_path, step=resumed_at).tb_writer
        for step in range(resumed_at + 1, last + 1):
            writer.add_scalar("train/loss", loss, step)
        writer.close()
    events = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER)).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(step, 1.0 if step <= 4 else 2.0) for step in range(1, 9)]


def sampling_stage(materials: dict[str, Path], run: Path, tracker: str) -> StageConfig:
    """Three steps with samples at two of them."""
    config = build_config(materials, run)
    assert config.watch.samples is not None
    samples = config.watch.samples.model_copy(update={"every": SAMPLED[0]})
    watch = config.watch.model_copy(update={"report_to": (tracker,), "samples": samples})
    data = config.data.model_copy(update={"num_samples": 12, "validation": ()})
    return config.model_copy(update={"watch": watch, "data": data})


def kept_samples(run: Path, step: int) -> tuple[Image.Image, str]:
    """The grid and the answers that a run has in its folder."""
    stem = run / SAMPLES_FOLDER / f"step_{step:06d}"
    return Image.open(stem.with_suffix(".png")), stem.with_suffix(".txt").read_text()


def assert_same_picture(first: Image.Image, second: Image.Image) -> None:
    assert first.size == second.size
    assert ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getbbox() is None


def test_samples_come_back_from_tensorboard(materials: dict[str, Path], tmp_path: Path) -> None:
    assert run_stage(sampling_stage(materials, tmp_path, "tensorboard"))
    events = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER)).Reload()
    pictures = events.Images("train/samples")
    answers = events.Tensors("train/answers/text_summary")
    assert [each.step for each in pictures] == [each.step for each in answers] == list(SAMPLED)
    for step, picture, answer in zip(SAMPLED, pictures, answers, strict=True):
        grid, text = kept_samples(tmp_path, step)
        assert_same_picture(Image.open(io.BytesIO(picture.encoded_image_string)), grid)
        assert answer.tensor_proto.string_val[0].decode() == f"```\n{text}```"


def test_samples_come_back_from_wandb(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert run_stage(sampling_stage(materials, tmp_path / "run", "wandb"))
    assert wandb.run.summary["train/global_step"] == SAMPLED[-1]
    answers = wandb.run.summary["train/answers"]
    folder = Path(wandb.run.dir)
    wandb.finish()
    pictures = sorted((folder / "media" / "images" / "train").glob("samples_*.png"))
    assert len(pictures) == len(SAMPLED)
    kept = [kept_samples(tmp_path / "run", step) for step in SAMPLED]
    for path, (grid, _) in zip(pictures, kept, strict=True):
        assert_same_picture(Image.open(path), grid)
    assert answers == kept[-1][1]
