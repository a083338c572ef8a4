"""The tokenizer's training on its smallest scale: every loss, exact resume, what learns."""

import copy
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import train.tokenizer
from tests.train.tiny_pictures import write_folder
from tests.train.tokenizer_runs import (
    SHORT,
    SMOKE,
    assert_same_run,
    build_trainer,
    forget_accelerate,
    read_log,
    run_here,
    smoke_config,
    stop_at,
)
from train.step_checkpoints import StepCheckpoints
from train.step_log import StepClock
from train.tokenizer_trainer import TokenizerTrainer
from unitok.model import UniTok

LOSSES = {"l1", "l2", "edge", "lpips", "gan", "vq", "clip", "entropy"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed short run."""
    output = tmp_path_factory.mktemp("tokenizer") / "run"
    assert run_here(smoke_config(output, *SHORT))
    return output


@pytest.fixture(autouse=True)
def _leave_no_accelerate() -> Iterator[None]:
    yield
    forget_accelerate()


def gradients(trainer: TokenizerTrainer) -> dict[str, Tensor | None]:
    """Of the first step, by the names of the tokenizer's and the discriminator's parameters."""
    parts = trainer._parts(next(trainer.data.batches(0)))
    cache = trainer._cache(parts) if len(parts) > 1 else None
    trainer.forward.train()
    for number, part in enumerate(parts):
        trainer._backward(
            part, share=1 / len(parts), cache=None if cache is None else (cache, number)
        )
    named = dict(trainer.model.named_parameters())
    if trainer.adversary is not None:
        network = trainer.adversary.network
        named |= {f"discriminator.{name}": each for name, each in network.named_parameters()}
    return {name: each.grad for name, each in named.items()}


def test_a_run_logs_every_loss_and_leaves_weights_averages_and_samples(whole: Path) -> None:
    log = read_log(whole)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert {f"loss/{name}" for name in LOSSES} <= log[0].keys()
    assert {"loss", "lr", "grad_norm", "loss/discriminator", "loss/consistency"} <= log[0].keys()
    assert {"usage/codebook_3", "perplexity/codebook_3", "grad_norm/discriminator"} <= log[0].keys()
    assert {"eval/psnr", "ema/psnr"} <= log[2].keys()
    assert sorted(path.name for path in (whole / "samples").iterdir()) == [
        f"{name}_00000{step}.png" for name in ("ema", "eval") for step in (3, 6)
    ]
    for folder in ("model", "model_ema"):
        assert UniTok.from_pretrained(whole / folder).config.num_codebooks == 4
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == ["step_000004.pt", "step_000006.pt"]


def test_the_logged_loss_is_the_weighted_sum_of_its_terms(whole: Path) -> None:
    weights = smoke_config(whole).weights
    last = read_log(whole)[-1]  # the discriminator counts in full
    terms = {name: getattr(weights, name) * last[f"loss/{name}"] for name in LOSSES}
    terms["gan"] *= last["adaptive_weight"]
    assert last["loss"] == pytest.approx(sum(terms.values()), rel=1e-5)


def test_a_run_stopped_by_a_signal_and_resumed_is_the_same_bit_for_bit(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = smoke_config(tmp_path / "run", *SHORT)
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert not run_here(config)
    assert not (tmp_path / "run" / "model").exists()
    assert run_here(config, resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_sigterm_ends_the_command_with_0_and_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(3, monkeypatch)
    command = [str(SMOKE), f"output={tmp_path / 'run'}", *SHORT]
    result = CliRunner().invoke(train.tokenizer.app, command)
    assert result.exit_code == 0, result.output
    assert "stopped and saved; go on with --resume" in result.output
    checkpoints = StepCheckpoints(tmp_path / "run", keep=2)
    assert checkpoints.paths()[-1].name == "step_000003.pt"


def test_a_save_that_is_cut_off_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = StepCheckpoints(tmp_path, keep=1)
    checkpoints.save({"step": 1}, 1)

    def write_half(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half of a")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save({"step": 2}, 2)
    assert checkpoints.load_newest() == {"step": 1}


def cut_off(content: bytes) -> bytes:
    return content[:-1000]


def change_one_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut_off, change_one_byte])
def test_a_damaged_checkpoint_is_named_and_nothing_starts_afresh(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    config = smoke_config(tmp_path / "run", *SHORT, "steps=2")
    run_here(config)
    newest = tmp_path / "run" / "checkpoints" / "step_000002.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.raises(RuntimeError, match=r"cannot read checkpoint .*step_000002\.pt .*delete it"):
        run_here(config, resume=True)


def test_a_console_line_has_losses_speed_memory_and_what_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert run_here(smoke_config(tmp_path / "run", *SHORT, "steps=2"))
    lines = [line for line in caplog.messages if line.startswith(("1/2 loss ", "2/2 loss "))]
    assert len(lines) == 2
    values = dict(zip(lines[0].split()[1::2], map(float, lines[0].split()[2::2]), strict=True))
    assert list(values)[-3:] == ["images_per_second", "peak_ram_gib", "eta_minutes"]
    assert {f"loss/{name}" for name in LOSSES} | {"lr", "grad_norm", "usage/mean"} <= values.keys()
    assert not any("codebook" in name for name in values)
    assert values["eta_minutes"] == pytest.approx(8 / values["images_per_second"] / 60, rel=1e-3)
    assert 0.1 < values["peak_ram_gib"] < 64
    assert lines[1].endswith("eta_minutes 0.0")


def test_looking_at_pictures_is_no_time_of_steps() -> None:
    clock = StepClock(0, device=torch.device("cpu"))
    with clock.stopped():
        time.sleep(0.2)
    assert clock.rates(1, 2, per_step=8)["images_per_second"] > 8 / 0.2


def test_what_is_missing_is_said_before_there_is_a_run_folder(tmp_path: Path) -> None:
    missing = f"adversary.network={{weights: {tmp_path / 'none'}}}"
    with pytest.raises(FileNotFoundError, match="no DINOv2 weights at"):
        run_here(smoke_config(tmp_path / "run", *SHORT, missing))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_pictures_is_trained_on_and_looked_at(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "pictures")
    path = f"data.source={{kind: folder, path: {source['path']}}}"
    assert run_here(smoke_config(tmp_path / "run", *SHORT, path, "steps=2"))
    assert list((tmp_path / "run" / "samples").iterdir())


def test_one_process_needs_no_share_of_the_optimizers_state(tmp_path: Path) -> None:
    for name, zero1 in (("plain", "false"), ("zero1", "true")):
        assert run_here(smoke_config(tmp_path / name, *SHORT, "steps=2", f"zero1={zero1}"))
    assert_same_run(tmp_path / "plain", tmp_path / "zero1")


def test_one_setting_of_the_discriminator_leaves_the_others_as_published(tmp_path: Path) -> None:
    optim = smoke_config(tmp_path, "adversary.optim={lr: 1.0e-5}").adversary.optim
    assert (optim.lr, optim.betas, optim.weight_decay, optim.warmup_share) == (
        1e-5, (0.5, 0.9), 0.2, 0.03
    )  # fmt: skip


def test_the_discriminator_waits_and_its_judgement_warms_up(tmp_path: Path) -> None:
    adversary = build_trainer(smoke_config(tmp_path, "adversary.start_share=0.375")).adversary
    assert adversary is not None
    assert [adversary.is_active(step) for step in (0, 74, 75, 199)] == [False, False, True, True]
    weights = [adversary.weight(step) for step in range(75, 82)]  # 3 % of 200 steps: 6
    assert weights == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])
    adversary.update(75)
    first = adversary.optimizer.param_groups[0]["lr"]
    adversary.update(80)
    assert first < adversary.optimizer.param_groups[0]["lr"] <= adversary.config.optim.lr


def test_before_it_the_discriminator_costs_and_changes_nothing(tmp_path: Path) -> None:
    trainer = build_trainer(smoke_config(tmp_path))
    assert trainer.adversary is not None
    before = copy.deepcopy(trainer.adversary.network.heads.state_dict())
    values = trainer._train_step(trainer._parts(next(trainer.data.batches(0))))
    assert not {"loss/gan", "loss/discriminator", "adaptive_weight"} & values.keys()
    after = trainer.adversary.network.heads.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pictures_that_are_not_decoded_count_in_the_contrastive_loss_alone(tmp_path: Path) -> None:
    losses = {}
    for vae_batch in (8, 4):
        config = smoke_config(tmp_path, *SHORT, f"batch={{size: 8, vae_batch: {vae_batch}}}")
        trainer = build_trainer(config)
        parts = trainer._parts(next(trainer.data.batches(0)))
        decoded: list[int] = []
        trainer.model.decoder.register_forward_hook(
            lambda module, args, output, decoded=decoded: decoded.append(len(output))
        )
        losses[vae_batch] = trainer._train_step(parts)
        assert decoded == [vae_batch]
    assert losses[8]["loss/clip"] == pytest.approx(losses[4]["loss/clip"], rel=1e-5)
    assert losses[8]["loss/l1"] != pytest.approx(losses[4]["loss/l1"], rel=1e-3)


def test_gradients_are_clipped_after_their_norm_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_trainer(smoke_config(tmp_path, *SHORT, "optim.clip_grad=0.5"))
    seen: list[float] = []

    def measure(*arguments: object) -> None:
        grads = [each.grad.norm() for each in trainer.model.parameters() if each.grad is not None]
        seen.append(torch.stack(grads).norm().item())

    monkeypatch.setattr(trainer.optimizers[0], "step", measure)
    values = trainer._train_step(trainer._parts(next(trainer.data.batches(0))))
    assert values["grad_norm"] > 1
    assert seen == [pytest.approx(0.5, rel=1e-4)]


def test_the_temperature_is_clamped_where_the_logits_are_scaled_by_100(tmp_path: Path) -> None:
    trainer = build_trainer(smoke_config(tmp_path, *SHORT))
    with torch.no_grad():
        trainer.model.logit_scale.fill_(7)
    values = trainer._train_step(trainer._parts(next(trainer.data.batches(0))))
    assert values["logit_scale"] == pytest.approx(100)


def test_the_averaged_weights_are_saved_beside_the_last_ones(whole: Path) -> None:
    checkpoints = StepCheckpoints(whole, keep=2)
    state = checkpoints.load_newest()
    assert state is not None
    for folder, part in (("model", "model"), ("model_ema", "average")):
        saved = load_file(whole / folder / "model.safetensors")
        assert all(torch.equal(saved[name], state[part][name]) for name in saved)
    name = "projection.weight"
    assert not torch.equal(state["model"][name], state["average"][name])


def test_a_millionth_step_is_newer_than_those_before(tmp_path: Path) -> None:
    checkpoints = StepCheckpoints(tmp_path, keep=2)
    for step in (999_998, 999_999, 1_000_000):
        checkpoints.save({"step": step}, step)
    assert len(checkpoints.paths()) == 2
    state = checkpoints.load_newest()
    assert state is not None
    assert state["step"] == 1_000_000


def test_a_resumed_run_keeps_its_settings(whole: Path) -> None:
    with pytest.raises(ValueError, match="the settings differ from those in"):
        run_here(smoke_config(whole, *SHORT, "optim.lr=1e-4"), resume=True)


def test_every_parameter_that_should_learn_gets_a_gradient_and_no_frozen_one(
    tmp_path: Path,
) -> None:
    trainer = build_trainer(smoke_config(tmp_path, *SHORT, "model.drop_path=0"))
    found = gradients(trainer)
    learning = {name for name, gradient in found.items() if gradient is not None}
    frozen = set(found) - learning
    judges = {name for name in frozen if name.startswith("discriminator.features.")}
    assert frozen - judges == {"encoder.pos_embed"}
    assert {name.split(".")[1] for name in learning if "discriminator" in name} == {"heads"}
    silent = [name for name in learning if not found[name].any()]  # type: ignore[union-attr]
    assert silent == []
    assert trainer.losses.perceptual is not None
    assert all(parameter.grad is None for parameter in trainer.losses.perceptual.parameters())


def test_accumulated_parts_give_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    """The contrastive loss is; adaptive weight and entropy belong to a part and are off here."""
    changes = (*SHORT, "weights.gan=0", "weights.entropy=0")
    expected = gradients(build_trainer(smoke_config(tmp_path, *changes)))
    got = gradients(build_trainer(smoke_config(tmp_path, *changes, "batch.accumulation=4")))
    for name, gradient in expected.items():
        # Measured: at most 4e-6 of the largest gradient of a parameter.
        if gradient is not None:
            torch.testing.assert_close(
                got[name], gradient, rtol=0, atol=1e-4 * gradient.abs().max().item(), msg=name
            )


def test_recomputed_blocks_give_the_same_gradients(tmp_path: Path) -> None:
    expected = gradients(build_trainer(smoke_config(tmp_path, *SHORT)))
    got = gradients(build_trainer(smoke_config(tmp_path, *SHORT, "gradient_checkpointing=true")))
    assert expected.keys() == got.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients(tmp_path: Path) -> None:
    expected = gradients(build_trainer(smoke_config(tmp_path, *SHORT)))
    got = gradients(build_trainer(smoke_config(tmp_path, *SHORT, "compile=true")))
    for name, gradient in expected.items():
        if gradient is not None:
            torch.testing.assert_close(
                got[name], gradient, rtol=0, atol=1e-4 * gradient.abs().max().item(), msg=name
            )


def test_a_batch_that_parts_cannot_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"parts of 1 pictures, expected a multiple of 2"):
        build_trainer(smoke_config(tmp_path, "batch.accumulation=8"))


def test_a_loss_that_is_not_finite_is_named_and_no_weight_is_changed(tmp_path: Path) -> None:
    trainer = build_trainer(smoke_config(tmp_path, *SHORT))
    before = trainer.model.projection.weight.clone()
    batch = next(trainer.data.batches(0))
    batch.pixels[0] = float("nan")
    with pytest.raises(RuntimeError, match=r"step 0: .*\bloss/l1 is nan.*--resume goes on"):
        trainer._train_step(trainer._parts(batch))
    assert torch.equal(trainer.model.projection.weight, before)


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        (("weights.clip=0",), {"text_encoder", "fc_norm", "projection", "logit_scale"}),
        (tuple(f"weights.{name}=0" for name in ("l1", "l2", "edge", "lpips", "gan")), {"decoder"}),
    ],
)
def test_what_no_loss_reaches_is_frozen(
    changes: tuple[str, ...], frozen: set[str], tmp_path: Path
) -> None:
    trainer = build_trainer(smoke_config(tmp_path, *SHORT, *changes))
    found = gradients(trainer)
    silent = {name.split(".")[0] for name, each in found.items() if each is None}
    assert silent - {"encoder", "discriminator"} == frozen
    trainer._train_step(trainer._parts(next(trainer.data.batches(1))))


def test_bfloat16_stays_near_float32(whole: Path, tmp_path: Path) -> None:
    trainer = build_trainer(smoke_config(tmp_path, *SHORT, "precision=bf16"))
    values = trainer._train_step(trainer._parts(next(trainer.data.batches(0))))
    expected = read_log(whole)[0]
    for name in ("loss/l1", "loss/l2", "loss/clip"):
        assert values[name] == pytest.approx(expected[name], rel=0.03)  # measured: 0.01


def test_a_typo_and_a_missing_run_end_with_one_line(tmp_path: Path) -> None:
    output = f"output={tmp_path / 'run'}"
    result = CliRunner().invoke(train.tokenizer.app, [str(SMOKE), output, "weights.lpip=1"])
    assert result.exit_code == 1
    assert "unknown key 'lpip' (did you mean 'lpips'?)" in result.output
    forget_accelerate()
    result = CliRunner().invoke(train.tokenizer.app, [str(SMOKE), output, "--resume"])
    assert result.exit_code == 1
    assert "no run to resume in" in result.output
