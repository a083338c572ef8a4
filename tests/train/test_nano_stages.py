"""The committed nano stages, one after another, under DeepSpeed: from raw data to a model."""

from pathlib import Path

import pytest

from mllm.pipeline import Pipeline
from tests.train.runs import ROOT, read_losses, run_module, run_processes

pytestmark = pytest.mark.slow

CONFIGS = ROOT / "train" / "configs"
NUM_EXAMPLES = 48


def train_stage(folder: Path, name: str, *settings: str) -> list[float]:
    """A stage of four steps on two processes; returns its losses."""
    run_processes(
        *("train.mllm", str(CONFIGS / f"{name}.yaml")),
        *("batch.samples_per_pack=4", "data.num_samples=32", "watch.samples=null"),
        *("watch.log_every=1", "watch.report_to=[]"),
        *settings,
        processes=2,
        folder=folder,
    )
    return read_losses(folder / "runs" / name)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the codes of some drawn scenes, made by the commands of the configs."""
    folder = tmp_path_factory.mktemp("stages")
    scenes = ("-o", "data/scenes", "--num-examples", str(NUM_EXAMPLES))
    run_module("train.scene_dataset", *scenes, folder=folder)
    run_module("train.extract_codes", str(CONFIGS / "nano_codes.yaml"), folder=folder)
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
