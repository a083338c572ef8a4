"""docs/own_pictures.md, carried out: 50 captioned pictures become an adapter that draws."""

import re
import tarfile
import textwrap
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import mllm.cli
import train.extract_codes
import train.mllm
from eval.scenes import render
from train.scene_data import training_example

PAGE = Path(__file__).parents[2] / "docs" / "own_pictures.md"
CONFIGS = Path(train.mllm.__file__).parent / "configs"
NUM_PICTURES = 50


def write_pictures(folder: Path) -> None:
    """Pictures with captions beside them, as someone has them in a folder."""
    folder.mkdir()
    for number in range(NUM_PICTURES):
        scene, caption = training_example(number)
        Image.fromarray(render(scene, 96)).save(folder / f"own_{number:02d}.jpg")
        (folder / f"own_{number:02d}.txt").write_text(caption)


def run(app, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ["nano_lora", "nano_qlora"])
def test_the_page_leads_from_a_folder_of_pictures_to_a_drawing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "nano_qlora":
        pytest.importorskip("bitsandbytes")
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    with tarfile.open("own.tar", "w") as tar:
        for path in sorted((tmp_path / "pictures").iterdir()):
            tar.add(path, path.name)
    settings = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert settings is not None
    Path("own.yaml").write_text(textwrap.dedent(settings[1]))
    output = run(train.extract_codes.app, "own.yaml", "--preview", "own.png")
    assert "100 rows (50 image_to_text, 50 text_to_image)" in output
    assert Image.open("own.png").width > 64
    config = CONFIGS / f"{name}.yaml"
    run(train.mllm.app, config, "data.num_samples=16", "watch.report_to=[]")
    model = f"runs/{name}/model"
    run(mllm.cli.app, "generate", "a red star", "-o", "star.png", "--model", model)
    assert Image.open("star.png").size == (64, 64)
