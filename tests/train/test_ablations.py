"""The ablations: equal budgets, only what is asked for runs, and nothing runs twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result
from typer.testing import CliRunner

import train.ablations
from tests.train.tokenizer_runs import build_trainer, forget_accelerate
from train.ablation_config import AblationConfig, load_variants
from train.ablations import RESULTS_FILE, SCORES_FILE, TABLES_FILE, VARIANTS, app
from train.config import load_config
from train.residual_quantizer import use_residual_quantizer
from train.step_checkpoints import StepCheckpoints
from train.tokenizer_config import TokenizerConfig
from unitok.files import read_json
from unitok.model import UniTok

TINY_BASE = {
    "output": "runs/tiny",
    "model": {
        "image_size": 32, "num_codebooks": 2, "codebook_size": 16, "codebook_dim": 8, "width": 32,
        "depth": 1, "num_heads": 2, "conv_widths": [8, 8], "conv_depths": [1, 1],
        "decoder_expand_ratio": 2, "feature_dim": 16, "text_width": 16, "text_heads": 2,
        "text_layers": 1, "text_vocab_size": 520, "text_context_length": 16,
    },
    "data": {"source": {"kind": "scenes"}, "crop": {"kind": "centre"}},
    "batch": {"size": 4, "vae_batch": 2},
    "steps": 2,
    "weights": {"edge": 1.0, "lpips": 0, "gan": 0},
    "optim": {"optimizer": "muon", "lr": 1.0e-3},
    "precision": "fp32",
    "num_workers": 0,
    "watch": {"num_samples": 2, "save_every": 1, "report_to": []},
    "device": "cpu",
}  # fmt: skip
TINY_VARIANTS = {
    "base": "base.yaml",
    "variants": {
        "both": {"label": "both losses"},
        "texts": {
            "label": "texts only",
            "changes": ["weights.l1=0", "weights.l2=0", "weights.edge=0"],
        },
        "residual": {"label": "residual", "quantizer": "residual"},
    },
    "studies": {"all": {"title": "All", "variants": ["texts", "residual", "both"]}},
    "scores": {"num_scenes": 10, "test_per_class": 1, "train_per_class": 1},
}


@pytest.fixture(autouse=True)
def _leave_no_accelerate() -> Iterator[None]:
    forget_accelerate()
    yield
    forget_accelerate()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three tiny variants, beside the YAML that describes them."""
    folder = tmp_path_factory.mktemp("ablations")
    for name, content in (("base", TINY_BASE), ("variants", TINY_VARIANTS)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    result = start(folder / "runs")
    assert result.exit_code == 0, result.output
    return folder / "runs"


def start(output: Path, *overrides: str) -> Result:
    """The command, with one seed."""
    forget_accelerate()
    variants = str(output.parent / "variants.yaml")
    return CliRunner().invoke(
        app, ["-o", str(output), "--variants", variants, "--seeds", "1", *overrides]
    )


def test_the_shipped_variants_have_equal_budgets_and_codebooks_of_equal_size() -> None:
    ablation = load_config(AblationConfig, VARIANTS)
    models = {name: each.model for name, each in load_variants(VARIANTS, ablation).items()}
    assert {(each.num_codebooks, each.codebook_size) for each in models.values()} == {
        (1, 2048), (2, 1024), (4, 512), (8, 256)
    }  # fmt: skip
    residual = use_residual_quantizer(UniTok(models["residual"]))
    assert residual.quantizer.codebook_size == 2048
    assert set(ablation.variants) == {
        name for study in ablation.studies.values() for name in study.variants
    }


def test_a_variant_with_another_budget_is_refused() -> None:
    ablation = load_config(AblationConfig, VARIANTS)
    longer = ablation.variants["residual"].model_copy(update={"changes": ("steps=9999",)})
    changed = ablation.model_copy(update={"variants": {**ablation.variants, "residual": longer}})
    with pytest.raises(ValueError, match=r"residual has another budget than base: steps 9999"):
        load_variants(VARIANTS, changed)


def test_a_study_of_an_unknown_variant_is_refused() -> None:
    studies = {"all": {"title": "All", "variants": ["both", "bth"]}}
    with pytest.raises(ValueError, match="study all compares bth; expected variants among both"):
        AblationConfig.model_validate({**TINY_VARIANTS, "studies": studies})


@pytest.mark.parametrize(
    ("variant", "idle"), [("contrastive", "decoder"), ("reconstruction", "text_encoder")]
)
def test_a_network_that_no_loss_reaches_does_not_run(
    variant: str, idle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablation = load_config(AblationConfig, VARIANTS)
    small = ["batch.size=4", "batch.vae_batch=2", f"output={tmp_path}"]
    trainer = build_trainer(load_variants(VARIANTS, ablation, small)[variant])

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        raise AssertionError(f"{idle} ran")

    monkeypatch.setattr(getattr(trainer.model, idle), "forward", run)
    values = trainer._train_step(trainer._parts(next(trainer.data.batches(0))))
    assert values["loss"] > 0


def test_all_variants_are_run_measured_and_tabulated(finished: Path) -> None:
    scores = {name: read_json(finished / name / "seed_0" / SCORES_FILE)["scores"]
              for name in TINY_VARIANTS["variants"]}  # fmt: skip
    assert scores["texts"]["psnr"] is None
    assert scores["both"]["psnr"] > 5
    assert all(0 <= each["captions"] <= 100 for each in scores.values())
    assert len(read_json(finished / RESULTS_FILE)["runs"]) == 3
    assert "| texts only | - |" in (finished / TABLES_FILE).read_text()
    assert (finished / "all.png").is_file()


def test_a_finished_run_is_not_run_again_and_a_stopped_one_is_ended(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = StepCheckpoints(finished / "both" / "seed_0", keep=2)
    expected = newest.load_newest()["model"]
    (finished / "both" / "seed_0" / SCORES_FILE).unlink()
    (finished / "both" / "seed_0" / "checkpoints" / "step_000002.pt").unlink()
    started = []
    open_run = train.ablations.open_run

    def watched(config: TokenizerConfig, **options):
        started.append((Path(config.output).parent.name, options["resume"]))
        return open_run(config, **options)

    monkeypatch.setattr(train.ablations, "open_run", watched)
    assert start(finished).exit_code == 0
    assert started == [("both", True)]
    got = newest.load_newest()["model"]
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_folder_of_other_settings_is_refused(finished: Path) -> None:
    result = start(finished, "steps=3")
    assert result.exit_code == 1
    assert "was run with other settings than these" in result.output
