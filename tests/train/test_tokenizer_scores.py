"""Scores of held-out pictures in a training: those of `eval`, with no effect on what is learned."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from eval import zeroshot
from eval.inception import Inception
from eval.picture_sources import PictureData
from eval.reconstruction_report import finish
from eval.reconstruction_run import Instruments, ReconstructionConfig, ReconstructionRun
from eval.report import read_report
from eval.tokenizer_peers import UniTokPeer
from mllm.share import WHOLE, Share
from tests.eval.tiny_extractor import TinyExtractor
from tests.train.runs import ROOT
from tests.train.tiny_pictures import build_data, write_folder
from tests.train.tokenizer_runs import SHORT, forget_accelerate, read_log, run_here, smoke_config
from train.tokenizer import build_accelerator, open_preview
from train.tokenizer_config import ScoresConfig, WatchConfig
from train.tokenizer_scores import HeldOutScores
from unitok.model import UniTok

CLASSES = ("red", "green", "blue", "grey", "white", "black")
SCORES = {"rfid", "inception_score", "zero_shot_top1", "zero_shot_top5"}


@pytest.fixture(autouse=True)
def _leave_no_accelerate() -> Iterator[None]:
    yield
    forget_accelerate()


@pytest.fixture(autouse=True)
def _tiny_inception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inception, "from_file", lambda path, **options: TinyExtractor())


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> ScoresConfig:
    """Two pictures of each class."""
    folder = tmp_path_factory.mktemp("held_out")
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 255, (70, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "templates.txt").write_text("a {} thing\nthe {} thing\n")
    return ScoresConfig(
        every=2,
        data=str(folder / "pictures"),
        batch_size=5,
        classes=folder / "classes.txt",
        templates=folder / "templates.txt",
    )


def scored(scores: ScoresConfig) -> str:
    return f"watch.scores={json.dumps(scores.model_dump(mode='json'))}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scores: ScoresConfig) -> Path:
    """Three steps, of which the second and the last are measured."""
    output = tmp_path_factory.mktemp("scored") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inception, "from_file", lambda path, **options: TinyExtractor())
        assert run_here(smoke_config(output, *SHORT, "steps=3", scored(scores)))
    return output


def test_they_are_logged_when_they_are_due(run: Path) -> None:
    log = read_log(run)
    names = {f"{model}/{name}" for model in ("eval", "ema") for name in SCORES}
    assert [names <= line.keys() for line in log] == [False, True, True]
    assert not names & log[0].keys()


def test_they_are_those_of_the_commands(run: Path, scores: ScoresConfig, tmp_path: Path) -> None:
    last = read_log(run)[-1]
    for name, folder in (("eval", "model"), ("ema", "model_ema")):
        data = PictureData(scores.data)
        config = ReconstructionConfig("unitok:model", data, tmp_path / name, batch_size=5)
        tools = Instruments(
            UniTokPeer(UniTok.from_pretrained(run / folder)), TinyExtractor(), lpips=None
        )
        alone = ReconstructionRun(config)
        alone.measure(tools, WHOLE, count_done=lambda number: None)
        assert last[f"{name}/rfid"] == pytest.approx(finish(alone).metrics["rfid"])
        output = tmp_path / f"{name}_zero_shot"
        options = ["--classes", scores.classes, "--templates", scores.templates]
        options += ["--model", f"unitok:{run / folder}", "-o", output, "--batch-size", 5]
        result = CliRunner().invoke(zeroshot.app, list(map(str, [scores.data, *options])))
        assert result.exit_code == 0, result.output
        metrics = read_report(output / "report.json").metrics
        assert last[f"{name}/zero_shot_top1"] == pytest.approx(metrics["top1"])
        assert last[f"{name}/zero_shot_top5"] == pytest.approx(metrics["top5"])


def test_reports_stay_and_what_is_bulky_goes(run: Path) -> None:
    folder = run / "scores" / "step_000002" / "ema"
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert found == [
        "reconstruction/pictures.png", "reconstruction/report.json", "reconstruction/settings.json",
        "zero_shot/report.json", "zero_shot/settings.json",
    ]  # fmt: skip


def test_measuring_changes_nothing_of_what_is_learned(run: Path, tmp_path: Path) -> None:
    assert run_here(smoke_config(tmp_path / "run", *SHORT, "steps=3"))
    plain, measured = (
        load_file(each / "model" / "model.safetensors") for each in (tmp_path / "run", run)
    )
    assert all(torch.equal(plain[name], measured[name]) for name in plain)


def test_processes_together_find_what_one_finds(
    run: Path, scores: ScoresConfig, tmp_path: Path
) -> None:
    model = UniTok.from_pretrained(run / "model")
    alone = HeldOutScores(scores, tmp_path / "one", device="cpu", share=WHOLE)
    alone.measure(model, 7, name="eval")
    for index in (1, 0):
        shared = HeldOutScores(scores, tmp_path / "two", device="cpu", share=Share(index, 2))
        shared.measure(model, 7, name="eval")
    expected = alone.report(model, 7, name="eval")
    assert shared.report(model, 7, name="eval") == expected
    assert expected.keys() == {f"eval/{name}" for name in SCORES}


def test_what_a_lost_run_has_measured_is_measured_anew(
    run: Path, scores: ScoresConfig, tmp_path: Path
) -> None:
    stale = tmp_path / "run" / "scores" / "step_000002" / "eval" / "zero_shot" / "settings.json"
    stale.parent.mkdir(parents=True)
    stale.write_text('{"model_fingerprint": "of other weights"}\n')
    model = UniTok.from_pretrained(run / "model")
    held_out = HeldOutScores(scores, tmp_path / "run", device="cpu", share=WHOLE)
    with pytest.raises(ValueError, match="was begun with model_fingerprint of other weights"):
        held_out.measure(model, 2, name="eval")
    held_out.clear(2)
    held_out.measure(model, 2, name="eval")
    assert json.loads(stale.read_text())["model_fingerprint"] == model.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "nowhere"}, "no pictures at nowhere"),
        ({"classes": "few.txt"}, "has 6 classes, got 2 names"),
    ],
)
def test_what_is_missing_is_said_before_there_is_a_run_folder(
    changes: dict[str, str], message: str, scores: ScoresConfig, tmp_path: Path
) -> None:
    (tmp_path / "few.txt").write_text("red\ngreen\n")
    named = {key: str(tmp_path / value) if key == "classes" else value
             for key, value in changes.items()}  # fmt: skip
    wrong = ScoresConfig.model_validate({**scores.model_dump(), **named})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_here(smoke_config(tmp_path / "run", *SHORT, scored(wrong)))
    assert not (tmp_path / "run").exists()


def test_missing_weights_are_named_with_their_setting(
    scores: ScoresConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    missing = scores.model_copy(update={"inception": tmp_path / "no.pth"})
    with pytest.raises(FileNotFoundError, match=r"no\.pth; .* with watch\.scores\.inception"):
        run_here(smoke_config(tmp_path / "run", *SHORT, scored(missing)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("watch.scores={every: 2, data: a, rfid: false, zero_shot: false}", "measures nothing"),
        ("weights.clip=0", r"weights\.clip 0 leaves untrained"),
    ],
)
def test_scores_that_make_no_sense_are_refused(
    change: str, message: str, scores: ScoresConfig, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        smoke_config(tmp_path, scored(scores), change)


def test_the_documented_settings_are_accepted() -> None:
    text = (ROOT / "docs" / "tokenizer_training.md").read_text(encoding="utf-8")
    (block,) = (part.split("```")[0] for part in text.split("```yaml\n")[1:])
    watch = WatchConfig.model_validate(yaml.safe_load(block)["watch"])
    assert watch.source is not None
    assert watch.scores is not None
    assert watch.scores.limit == 5000


def test_pictures_to_look_at_may_be_held_out_ones(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "held_out")
    path = f"watch.source={{kind: folder, path: {source['path']}}}"
    config = smoke_config(tmp_path / "run", path, "watch.num_samples=6")
    preview = open_preview(config, build_accelerator(config))
    assert preview is not None
    whole = build_data(source, crop={"kind": "centre"}, batch_size=6).first_batch()
    assert sorted(map(_sum, preview.pixels)) == pytest.approx(sorted(map(_sum, whole.pixels)))


def _sum(pixels: torch.Tensor) -> float:
    return pixels.sum().item()
