"""docs/own_pictures.md, carried out: 50 captioned pictures become an adapter that draws."""

import importlib
import re
import shlex
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import mllm.cli
import train.mllm
from eval.inspector import inspect
from eval.scenes import PALETTE, SceneObject, render
from tests.train.runs import read_losses
from train.scene_data import training_example

PAGE = Path(__file__).parents[2] / "docs" / "own_pictures.md"
CONFIGS = Path(train.mllm.__file__).parent / "configs"
NUM_PICTURES = 50
PROMPT = "a red star"  # the page's
NUM_STEPS = {"nano_lora": 40, "nano_qlora": 2}  # of 8 samples
COMMAND = re.compile(r"(?:^ *|`)((?:tar|python -m|unitok) [^`\n]+)", re.MULTILINE)


def write_pictures(folder: Path) -> None:
    """Pictures with captions beside them, as someone has them in a folder: here all of a ring."""
    folder.mkdir()
    ring = SceneObject("ring", "purple", "large", x=0.5, y=0.5, radius=0.2, rgb=PALETTE["purple"])
    for number in range(NUM_PICTURES):
        scene, _ = training_example(number)  # for its background
        picture = render(replace(scene, objects=(ring,)), 96)
        Image.fromarray(picture).save(folder / f"own_{number:02d}.jpg")
        (folder / f"own_{number:02d}.txt").write_text(PROMPT)


def settings_of_the_page() -> str:
    block = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return textwrap.dedent(block[1])


def carry_out(command: str, *settings: str) -> str:
    """A command of the page, in this process if it is one of ours; returns what it said."""
    words = shlex.split(command)
    if words[0] == "tar":
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout
    if words[0] == "unitok":
        app, arguments = mllm.cli.app, words[1:]
    else:
        app, arguments = importlib.import_module(words[2]).app, words[3:]
    result = CliRunner().invoke(app, [*arguments, *settings])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nano_lora", "nano_qlora"])
def test_the_page_leads_from_a_folder_of_pictures_to_a_drawing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "nano_qlora":
        pytest.importorskip("bitsandbytes")
    monkeypatch.chdir(tmp_path)
    Path("train").mkdir()
    Path("train/configs").symlink_to(CONFIGS)
    write_pictures(Path("pictures"))
    Path("own.yaml").write_text(settings_of_the_page())
    page = PAGE.read_text(encoding="utf-8").replace("nano_lora", name)
    tar, extract, learn, draw = COMMAND.findall(page)
    carry_out(tar)
    assert "100 rows (50 image_to_text, 50 text_to_image)" in carry_out(extract)
    assert Image.open("own.png").width > 64
    steps = NUM_STEPS[name]
    quick = ("precision=fp32", "watch.report_to=[]", "watch.log_every=1")  # any CPU has float32
    carry_out(learn, f"data.num_samples={8 * steps}", *quick)
    losses = read_losses(tmp_path / "runs" / name)
    assert len(losses) == steps
    carry_out(draw)
    drawn = Image.open("star.png")
    assert drawn.size == (64, 64)
    if steps > 2:
        check_learned(losses, drawn)


def check_learned(losses: list[float], drawn: Image.Image) -> None:
    """The losses fall, and what nano draws as a star has become a ring."""
    # Measured 0.54; what is left are backgrounds, which no caption names.
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    # After so few steps it still has the color of the prompt.
    assert [each.shape for each in inspect(np.asarray(drawn))] == ["ring"]
