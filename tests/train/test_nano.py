"""The nano recipe on tiny sizes: every stage runs, stops, resumes, and leaves a model behind."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mllm.pipeline import Pipeline
from train import embed, scene_data
from train.config import load_config
from train.nano import DEFAULT_CONFIG, NanoConfig, app, start_run
from train.nano_tokenizer import train_tokenizer
from unitok.config import PRESETS
from unitok.model import UniTok

TINY = [
    "text.num_examples=40",
    "text.vocab_size=400",
    "codes.num_examples=20",
    "codes.num_dialogues=10",
    "image_tokenizer.batch_size=4",
    "image_tokenizer.model.width=64",
    "image_tokenizer.model.num_heads=2",
    "image_tokenizer.model.depth=1",
    "image_tokenizer.model.conv_widths=[8, 8]",
    "image_tokenizer.model.conv_depths=[1, 1]",
    "mllm.model.hidden_size=32",
    "mllm.model.intermediate_size=32",
    "mllm.model.num_layers=1",
    "mllm.model.num_heads=2",
    "mllm.model.projection_dim=64",
    "mllm.model.projection_heads=2",
    "mllm.model.head_layers=1",
    "mllm.mix={drawings: 2, question_rows: 2, dialogues: 2}",
    *(
        f"{stage}.loop.{key}"
        for stage in ("image_tokenizer", "mllm")
        for key in ("steps=4", "save_every=2", "sample_every=1000", "log_every=2")
    ),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went through undisturbed, with its scores."""
    folder = tmp_path_factory.mktemp("nano") / "run"
    command = ["-o", str(folder), "--items", "6", "--threads", "1", *TINY]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Pipeline.from_pretrained(
        folder / "mllm_model", tokenizer=folder / "unitok", device="cpu"
    ).model.state_dict()


def test_the_recipe_leaves_a_model_and_its_scores(finished: Path) -> None:
    scores = json.loads((finished / "scores.json").read_text())
    assert scores["questions"]["all"]["num_items"] == 6
    assert {"single_object", "color_attr"} <= set(scores["drawings"])
    assert scores["reconstruction"]["all"]["num_items"] == 6
    assert weights(finished)["lm_head.weight"].isfinite().all()


def test_a_run_cut_short_and_resumed_gives_the_same_weights(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    run = start_run(DEFAULT_CONFIG, TINY, folder, resume=False)
    run.train()
    for stage in ("image_tokenizer", "mllm"):  # as if killed after the first checkpoint
        (folder / stage / "checkpoints" / "step_000004.pt").unlink()
    for result in ("unitok/model.safetensors", "mllm_model/model.safetensors"):
        (folder / result).unlink()
    start_run(DEFAULT_CONFIG, [], folder, resume=True).train()
    expected, got = weights(finished), weights(folder)
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_a_folder_in_use_and_a_missing_run_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not empty; add --resume"):
        start_run(DEFAULT_CONFIG, [], finished, resume=False)
    with pytest.raises(ValueError, match="keeps the settings"):
        start_run(DEFAULT_CONFIG, ["mllm.text_weight=2"], finished, resume=True)
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        start_run(DEFAULT_CONFIG, [], tmp_path / "none", resume=True)


def test_a_typo_ends_with_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["-o", str(tmp_path / "run"), "mllm.text_wieght=2"])
    assert result.exit_code == 1
    assert "mllm: unknown key 'text_wieght' (did you mean 'text_weight'?)" in result.output
    assert not (tmp_path / "run").exists()


def test_a_finished_run_can_be_embedded(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "TOKENIZER_FOLDER", tmp_path / "unitok_nano")
    monkeypatch.setattr(embed, "MLLM_FOLDER", tmp_path / "mllm_nano")
    monkeypatch.setattr(embed, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(embed, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("a\n<!-- nano-scores -->\nold\n<!-- /nano-scores -->\nb\n")
    embed.embed_run(finished)
    readme = (tmp_path / "README.md").read_text()
    assert "old" not in readme
    assert "| same objects after encode and decode | 6 |" in readme
    assert "## Questions answered right" in (tmp_path / "results" / "nano.md").read_text()
    assert (tmp_path / "mllm_nano" / "tokenizer.model").is_file()


def test_the_shipped_recipe_is_valid() -> None:
    config = load_config(NanoConfig, DEFAULT_CONFIG)
    assert config.image_tokenizer.model == PRESETS["nano"]


def test_a_tokenizer_can_start_from_trained_weights_of_its_sizes(
    finished: Path, tmp_path: Path
) -> None:
    tokenizer = finished / "unitok"
    settings = [*TINY, f"image_tokenizer.init_from={tokenizer}", "image_tokenizer.loop.lr=1e-9"]
    config = load_config(NanoConfig, DEFAULT_CONFIG, settings).image_tokenizer
    trained = train_tokenizer(config, tmp_path / "same")
    assert trained is not None
    start = UniTok.from_pretrained(tokenizer).quantizer.codebooks_KVD
    torch.testing.assert_close(trained.quantizer.codebooks_KVD, start.float())
    other = load_config(NanoConfig, DEFAULT_CONFIG, settings[-2:]).image_tokenizer
    with pytest.raises(ValueError, match="a tokenizer of other sizes than"):
        train_tokenizer(other, tmp_path / "other")


def test_the_mllm_can_start_from_trained_weights_and_keeps_their_vocabulary(
    finished: Path, tmp_path: Path
) -> None:
    settings = [
        *TINY,
        f"image_tokenizer.init_from={finished / 'unitok'}",
        f"mllm.init_from={finished / 'mllm_model'}",
        "mllm.loop.lr=1e-9",
        "text.vocab_size=390",
    ]
    assert start_run(DEFAULT_CONFIG, settings, tmp_path / "same", resume=False).train() is not None
    expected, got = weights(finished), weights(tmp_path / "same")
    torch.testing.assert_close(got["lm_head.weight"], expected["lm_head.weight"])
    other = [*settings, "mllm.model.hidden_size=64"]
    with pytest.raises(ValueError, match=r"other sizes than mllm\.model"):
        start_run(DEFAULT_CONFIG, other, tmp_path / "other", resume=False).train()


def test_a_budget_is_kept_for_the_resumed_run(tmp_path: Path) -> None:
    start_run(DEFAULT_CONFIG, ["budget_minutes=7"], tmp_path / "run", resume=False)
    assert start_run(DEFAULT_CONFIG, [], tmp_path / "run", resume=True).config.budget_minutes == 7


def test_codes_of_another_tokenizer_or_world_are_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = finished / "codes.safetensors"
    own = UniTok.from_pretrained(finished / "unitok").fingerprint
    assert len(scene_data.SceneCodes(path, tokenizer_fingerprint=own).examples) == 20
    with pytest.raises(ValueError, match=r"tokenizer_fingerprint \w+, expected other; delete"):
        scene_data.SceneCodes(path, tokenizer_fingerprint="other")
    monkeypatch.setattr(scene_data, "training_example", lambda index: index)
    with pytest.raises(ValueError, match=r"extracted with scenes \w+, expected"):
        scene_data.SceneCodes(path, tokenizer_fingerprint=own)
