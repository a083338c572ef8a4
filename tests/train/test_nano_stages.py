"""The committed nano stages, one after another, under DeepSpeed: from raw data to a model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import train.mllm
from mllm.pipeline import Pipeline
from tests.train.test_mllm import read_losses

pytestmark = pytest.mark.slow

ROOT = Path(train.mllm.__file__).parents[1]
CONFIGS = ROOT / "train" / "configs"
NUM_EXAMPLES = 48


def run(folder: Path, *command: str) -> None:
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=900,
        env=environment,
        check=False,
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def train_stage(folder: Path, name: str, *settings: str) -> list[float]:
    """A stage of four steps on two processes; returns its losses."""
    run(
        folder,
        *("torch.distributed.run", "--nproc_per_node", "2"),
        *("--master_port", str(29500 + os.getpid() % 1000)),
        *("-m", "train.mllm", str(CONFIGS / f"{name}.yaml")),
        *("batch.samples_per_pack=4", "data.num_samples=32", "watch.samples=null"),
        *("watch.log_every=1", "watch.report_to=[]"),
        *settings,
    )
    return read_losses(folder / "runs" / name)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the codes of some drawn scenes, made by the commands of the configs."""
    folder = tmp_path_factory.mktemp("stages")
    run(folder, "train.scene_dataset", "-o", "data/scenes", "--num-examples", str(NUM_EXAMPLES))
    run(folder, "train.extract_codes", str(CONFIGS / "nano_codes.yaml"))
    return folder


@pytest.mark.parametrize("deepspeed", ["zero2", "zero3"])
def test_three_stages_lead_from_codes_to_a_chatting_and_drawing_model(
    deepspeed: str, workplace: Path
) -> None:
    vocabulary = f"init_from.text_tokenizer={ROOT / 'mllm' / 'nano'}"
    stages = {"nano_align": [vocabulary], "nano_pretrain": [], "nano_finetune": []}
    for name, settings in stages.items():
        losses = train_stage(workplace, name, f"deepspeed={deepspeed}", *settings)
        assert len(losses) == 4
    last = workplace / "runs" / "nano_finetune" / "model"
    pipeline = Pipeline.from_pretrained(last, device="cpu")
    assert pipeline.chat("what color is the star?", "example:star", max_new_tokens=4) is not None
    assert pipeline.generate_images("a red star", num_images=1)[0].size == (64, 64)
    (workplace / "runs").rename(workplace / f"runs_{deepspeed}")
