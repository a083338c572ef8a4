"""One stage on CPU: it learns, freezes, resumes exactly and leaves a model behind."""

import json
import multiprocessing
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import train.mllm
import train.stage_trainer
from mllm.config import UniTokMLLMConfig
from mllm.pipeline import Pipeline
from tests.train.runs import (
    assert_same_weights,
    changed_parts,
    log_without_times,
    read_losses,
    weights,
)
from train.checkpoints import COMPLETE_FILE
from train.code_shards import MANIFEST_FILE
from train.config import CONFIG_COPY, begin_run, save_config
from train.mllm import run_stage
from train.parts import PARTS, part_of
from train.stage_config import StageConfig
from train.stage_data import open_start
from train.stage_result import CODEBOOKS

GOLDEN_CURVE = Path(__file__).parents[1] / "goldens" / "train" / "stage_curve.json"


def build_config(materials: dict[str, Path], output: Path, **changes: Any) -> StageConfig:
    tasks = [name for name in materials if name != "start"]
    sources = [{"name": task, "codes": str(materials[task])} for task in tasks]
    values = {
        "output": str(output),
        "init_from": {"mllm": str(materials["start"])},
        "trainable": list(PARTS),
        "data": {
            "sources": sources,
            "num_samples": 24,
            "validation": sources,
            "num_validation": 8,
            "num_workers": 0,
            "rows": {"max_length": 96},
        },
        "optim": {"lr": 1e-3},
        "batch": {"samples_per_pack": 2, "accumulation": 2},
        "watch": {
            "log_every": 1,
            "save_every": 2,
            "validate_every": 3,
            "report_to": [],
            "samples": {
                "every": 4,
                "prompts": ["a red star", "a blue circle"],
                "questions": [{"question": "what is it?", "image": "example:star"}],
                "answer_length": 4,
            },
        },
        "precision": "fp32",
        "device": "cpu",
    }
    return StageConfig.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def finished(materials: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "whole"
    assert run_stage(build_config(materials, run))
    return run


def test_a_stage_leaves_a_pipeline_and_a_log_with_losses_by_source(finished: Path) -> None:
    pipeline = Pipeline.from_pretrained(finished / "model", device="cpu")
    assert pipeline.generate_images("a red star", num_images=1)
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    samples = sorted(path.name for path in (finished / "samples").iterdir())
    assert samples == [f"step_{n:06d}.{kind}" for n in (4, 6) for kind in ("png", "txt")]
    assert (finished / "samples" / samples[1]).read_text().startswith("what is it?\n")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    named = {key for line in steps for key in line}
    assert {"loss/text", "loss/image", "loss/image/chat", "loss/text/text"} <= named
    validated = [line for line in lines if "eval_loss/text" in line]
    assert [line["step"] for line in validated] == [3, 6]
    assert validated[1]["eval_loss/image"] < validated[0]["eval_loss/image"]


def test_the_loss_curve_is_the_stored_one(finished: Path) -> None:
    """Weights, data and order of a stage, to the last step; stored from torch 2.15 on a CPU."""
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    stored = json.loads(GOLDEN_CURVE.read_text())
    for name, expected in stored.items():
        curve = [line[name] for line in lines if name in line and "loss" in line]
        assert curve == pytest.approx(expected, rel=1e-3), name


class StopAt(TrainerCallback):
    """SIGTERM in a step, to this process and, as clusters send it, to those that it has started."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **_) -> None:
        if state.global_step == self.step - 1:
            workers = [worker.pid for worker in multiprocessing.active_children()]
            # By another process: torch's workers take a signal of their parent for a farewell.
            subprocess.run(["kill", "-TERM", *map(str, [*workers, os.getpid()])], check=True)


def run_until(step: int, config: StageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a stage that gets SIGTERM in a step."""
    build = train.mllm.build_trainer

    def build_stopping(*arguments):
        trainer = build(*arguments)
        trainer.add_callback(StopAt(step))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(train.mllm, "build_trainer", build_stopping)
        assert not run_stage(config)


def test_a_stopped_and_resumed_stage_ends_with_the_same_weights(
    finished: Path,
    materials: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = build_config(materials, tmp_path / "parts")
    run_until(3, config, monkeypatch)
    assert (tmp_path / "parts" / "checkpoints" / "checkpoint-3").is_dir()
    assert run_stage(config, resume=True)
    assert_same_weights(finished, tmp_path / "parts")


def test_a_signal_to_the_workers_that_read_data_too_saves_and_the_resumed_run_is_the_same(
    finished: Path, materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_config(materials, tmp_path / "parts")
    data = config.data.model_copy(update={"num_workers": 1})
    config = config.model_copy(update={"data": data})
    run_until(1, config, monkeypatch)  # later the short run has all its data, and no worker
    assert (tmp_path / "parts" / "checkpoints" / "checkpoint-1" / COMPLETE_FILE).is_file()
    assert not (tmp_path / "parts" / "model").exists()
    assert run_stage(config, resume=True)
    assert_same_weights(finished, tmp_path / "parts")


def test_a_stage_of_which_only_one_part_learns_resumes_exactly_too(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (
        build_config(materials, tmp_path / name, trainable=["projector"])
        for name in ("whole", "parts")
    )
    assert run_stage(whole)
    run_until(3, parts, monkeypatch)
    assert run_stage(parts, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_goes_on_from_an_older_checkpoint_has_every_step_once_in_its_log(
    finished: Path, materials: dict[str, Path], tmp_path: Path
) -> None:
    config = copy_run(finished, materials, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-6")
    assert run_stage(config, resume=True)
    assert log_without_times(tmp_path / "run") == log_without_times(finished)


def test_a_run_that_stopped_between_two_lines_of_its_log_writes_the_same_lines(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (build_config(materials, tmp_path / name) for name in ("whole", "parts"))
    watch = whole.watch.model_copy(update={"log_every": 4, "samples": None})
    rows = whole.data.rows.model_copy(update={"max_length": 16})
    data = whole.data.model_copy(update={"rows": rows})
    whole, parts = (
        config.model_copy(update={"watch": watch, "data": data}) for config in (whole, parts)
    )
    assert run_stage(whole)
    run_until(3, parts, monkeypatch)
    assert run_stage(parts, resume=True)
    logged = log_without_times(tmp_path / "whole")
    assert logged == log_without_times(tmp_path / "parts")
    assert any(line.get("skipped_samples") for line in logged)
    first, second = (
        (tmp_path / name / "skipped_samples.jsonl").read_text() for name in ("whole", "parts")
    )
    assert first == second


@pytest.mark.parametrize(("cuts_up", "expected"), [(False, "cpu"), (True, "meta")])
def test_what_zero_3_has_cut_up_is_on_its_device_with_all_buffers(
    cuts_up: bool, expected: str, materials: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed moves no model that it cut up as it was loaded; any other is the Trainer's."""
    monkeypatch.setattr(train.stage_trainer, "is_deepspeed_zero3_enabled", lambda: cuts_up)
    config = build_config(materials, Path("run"))
    device = torch.device("meta")  # stands for a GPU
    pipeline = train.stage_trainer.load_start(config, str(materials["start"]), device=device)
    tensors = [*pipeline.model.buffers(), *pipeline.model.parameters()]
    assert {tensor.device.type for tensor in tensors} == {expected}


@pytest.mark.parametrize("part", list(PARTS))
def test_only_the_named_part_learns(part: str, materials: dict[str, Path], tmp_path: Path) -> None:
    config = build_config(materials, tmp_path, trainable=[part])
    run_stage(config)
    before = load_file(materials["start"] / "model.safetensors")
    assert changed_parts(before, weights(tmp_path)) == {part}


def test_each_part_has_its_own_share_of_the_learning_rate(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    optim = {"lr": 1e-3, "lr_scales": {"visual_head": 0.0, "projector": 0.5}}
    run_stage(build_config(materials, tmp_path, optim=optim))
    before, after = load_file(materials["start"] / "model.safetensors"), weights(tmp_path)
    moved = dict.fromkeys(PARTS, 0.0)
    for name in after:
        if "quantizer" not in name:
            change = (after[name] - before[name]).abs().max().item()
            moved[part_of(name)] = max(moved[part_of(name)], change)
    assert moved["visual_head"] == 0
    # AdamW moves a weight by about its rate at each step, whatever the gradient's size.
    assert moved["projector"] == pytest.approx(0.5 * moved["llm"], rel=0.3)


def test_gradient_checkpointing_changes_no_loss(
    finished: Path, materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, enabled = train.mllm.build_trainer, []

    def build_and_look(*arguments):
        trainer = build(*arguments)
        # The Trainer turns it on as it begins.
        trainer.model.decoder.register_forward_pre_hook(
            lambda decoder, _: enabled.append(decoder.gradient_checkpointing)
        )
        return trainer

    monkeypatch.setattr(train.mllm, "build_trainer", build_and_look)
    run_stage(build_config(materials, tmp_path, gradient_checkpointing=True))
    assert enabled
    assert all(enabled)
    assert read_losses(tmp_path) == pytest.approx(read_losses(finished), rel=1e-5)


def test_how_a_step_is_cut_changes_nothing(materials: dict[str, Path], tmp_path: Path) -> None:
    cuts = {"whole": (4, 1), "halves": (2, 2), "single": (1, 4)}
    results = {}
    for name, (samples, accumulation) in cuts.items():
        batch = {"samples_per_pack": samples, "accumulation": accumulation}
        run_stage(build_config(materials, tmp_path / name, batch=batch))
        results[name] = read_losses(tmp_path / name)
    # float32 sums in another order.
    assert results["halves"] == pytest.approx(results["whole"], rel=1e-4)
    assert results["single"] == pytest.approx(results["whole"], rel=1e-4)


def test_samples_that_are_too_long_are_listed(materials: dict[str, Path], tmp_path: Path) -> None:
    config = build_config(materials, tmp_path)
    rows = {"rows": {"max_length": 12}}
    data = config.data.model_copy(
        update={"rows": config.data.rows.model_validate(rows["rows"]), "validation": ()}
    )
    assert run_stage(config.model_copy(update={"data": data}))
    skipped = [
        json.loads(line) for line in (tmp_path / "skipped_samples.jsonl").read_text().splitlines()
    ]
    assert {entry["source"] for entry in skipped} >= {"chat", "text_to_image"}
    assert "at most 12 are allowed" in skipped[0]["reason"]


def test_a_stage_without_a_usable_sample_leaves_no_model(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_config(materials, tmp_path / "run")
    rows = config.data.rows.model_copy(update={"max_length": 3})
    data = config.data.model_copy(update={"rows": rows, "validation": ()})
    with pytest.raises(RuntimeError, match="nothing was learned: every sample was left out"):
        run_stage(config.model_copy(update={"data": data}))
    assert not (tmp_path / "run" / "model").exists()


def test_the_result_is_the_start_with_other_weights(
    finished: Path, materials: dict[str, Path]
) -> None:
    assert {path.name for path in (finished / "model").iterdir()} == {
        path.name for path in materials["start"].iterdir()
    }
    before, after = (
        UniTokMLLMConfig.from_pretrained(folder, dtype="float32").to_dict()
        for folder in (materials["start"], finished / "model")
    )
    assert after.pop("use_cache", True)
    assert before.pop("use_cache", True)
    before["text_config"].pop("dtype")
    after["text_config"].pop("dtype")
    assert after == before
    start = load_file(materials["start"] / "model.safetensors")
    # What the training itself kept: the result has them from the image tokenizer.
    kept = load_file(finished / "checkpoints" / "checkpoint-6" / "model.safetensors")
    assert torch.equal(kept[CODEBOOKS], start[CODEBOOKS])
    assert torch.equal(weights(finished)[CODEBOOKS], start[CODEBOOKS])


def test_what_is_wrong_with_data_is_said_before_there_is_a_run_folder(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_config(materials, tmp_path / "run")
    rows = config.data.rows.model_copy(update={"max_length": 97})
    data = config.data.model_copy(update={"rows": rows})
    with pytest.raises(ValueError, match="max_length is 97, but the model's context has 96"):
        run_stage(config.model_copy(update={"data": data}))
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_said_before_there_is_a_run_folder(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = build_config(materials, tmp_path / "run")
    watch = config.watch.model_copy(update={"report_to": ("wandb",)})
    with pytest.raises(ValueError, match="needs the package wandb: pip install wandb, or"):
        run_stage(config.model_copy(update={"watch": watch}))
    assert not (tmp_path / "run").exists()


def test_attention_that_is_not_installed_is_said_before_there_is_a_run_folder(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = build_config(materials, tmp_path / "run", attention="flash_attention_2")
    with pytest.raises(ValueError, match="needs the package flash-attn: pip install flash-attn"):
        run_stage(config)
    assert not (tmp_path / "run").exists()


def test_codes_of_another_tokenizer_are_refused_before_there_is_a_run_folder(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(materials["text"], tmp_path / "text")
    manifest = tmp_path / "text" / MANIFEST_FILE
    content = {**json.loads(manifest.read_text()), "tokenizer_fingerprint": "another"}
    manifest.write_text(json.dumps(content))
    config = build_config({**materials, "text": tmp_path / "text"}, tmp_path / "run")
    with pytest.raises(ValueError, match="were extracted with tokenizer another, the model has"):
        run_stage(config)
    assert not (tmp_path / "run").exists()


def test_a_model_that_names_no_tokenizer_is_refused_before_there_is_a_run_folder(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(materials["start"], tmp_path / "start")
    settings = tmp_path / "start" / "config.json"
    content = {**json.loads(settings.read_text()), "tokenizer_fingerprint": None}
    settings.write_text(json.dumps(content))
    config = build_config({**materials, "start": tmp_path / "start"}, tmp_path / "run")
    with pytest.raises(ValueError, match="names no image tokenizer, so nothing shows whether"):
        run_stage(config)
    assert not (tmp_path / "run").exists()


def test_a_stage_validates_on_the_rows_that_it_holds_out_and_at_its_end(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_config(materials, tmp_path)
    sources = tuple(source.model_copy(update={"held_out": 2}) for source in config.data.sources)
    rows = config.data.rows.model_copy(update={"max_length": 14})
    data = {"sources": sources, "validation": (), "num_samples": 16, "rows": rows}
    watch = config.watch.model_copy(update={"validate_every": 3, "samples": None})
    config = config.model_copy(update={"data": config.data.model_copy(update=data), "watch": watch})
    assert run_stage(config)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    validated = [line for line in lines if "eval_loss/text" in line]
    assert [line["step"] for line in validated] == [3, 4]
    _, opened = open_start(config)
    assert opened.validation is not None
    samples = [opened.validation[number] for number in range(8)]
    too_long = [sample.row_id for sample in samples if sample.problem is not None]
    assert {line["eval_skipped_samples"] for line in validated} == {len(too_long)}
    listed = [
        json.loads(line)["id"]
        for line in (tmp_path / "skipped_samples.jsonl").read_text().splitlines()
    ]
    assert sorted(name for name in listed if name in too_long) == sorted(2 * too_long)
    assert too_long


def test_a_run_stopped_before_its_first_checkpoint_starts_again(
    finished: Path, materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_config(materials, tmp_path / "run")
    begin_run(config, tmp_path / "run")
    assert run_stage(config, resume=True)
    assert_same_weights(finished, tmp_path / "run")


def copy_run(finished: Path, materials: dict[str, Path], target: Path) -> StageConfig:
    """A finished run under another name, and its settings."""
    shutil.copytree(finished, target)
    config = build_config(materials, target)
    save_config(config, target / CONFIG_COPY)
    return config


def test_a_run_killed_before_it_wrote_its_model_writes_it_when_resumed(
    finished: Path, materials: dict[str, Path], tmp_path: Path
) -> None:
    config = copy_run(finished, materials, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    assert run_stage(config, resume=True)
    assert_same_weights(finished, tmp_path / "run")


def test_another_number_of_processes_is_refused_on_resume(
    finished: Path, materials: dict[str, Path], tmp_path: Path
) -> None:
    config = copy_run(finished, materials, tmp_path / "run")
    mark = tmp_path / "run" / "checkpoints" / "checkpoint-6" / COMPLETE_FILE
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "processes": 2}))
    with pytest.raises(ValueError, match="was written by 2 processes, now there are 1; resume"):
        run_stage(config, resume=True)


def test_other_settings_are_refused_on_resume(finished: Path, materials: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="the settings differ"):
        run_stage(build_config(materials, finished, seed=5), resume=True)


def test_a_run_folder_is_not_overwritten(finished: Path, materials: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="is not empty; add --resume"):
        run_stage(build_config(materials, finished))


def test_a_checkpoint_that_was_cut_off_is_named(finished: Path, materials: dict[str, Path]) -> None:
    newest = finished / "checkpoints" / "checkpoint-6"
    mark = (newest / COMPLETE_FILE).read_text()
    (newest / COMPLETE_FILE).unlink()
    with pytest.raises(ValueError, match=r"checkpoint-6 is incomplete"):
        run_stage(build_config(materials, finished), resume=True)
    (newest / COMPLETE_FILE).write_text(mark)


def test_a_checkpoint_whose_files_were_damaged_later_is_named(
    finished: Path, materials: dict[str, Path], tmp_path: Path
) -> None:
    config = copy_run(finished, materials, tmp_path / "run")
    weights_file = tmp_path / "run" / "checkpoints" / "checkpoint-6" / "model.safetensors"
    content = bytearray(weights_file.read_bytes())
    content[-5] ^= 1  # of a weight; the file is as long as before and can be read
    weights_file.write_bytes(content)
    message = r"checkpoint-6 is damaged: model\.safetensors is not as it was written; delete"
    with pytest.raises(ValueError, match=message):
        run_stage(config, resume=True)
    weights_file.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing; delete"):
        run_stage(config, resume=True)
