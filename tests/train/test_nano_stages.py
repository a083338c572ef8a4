"""The committed nano stages, one after another, under DeepSpeed: from raw data to a model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mllm.pipeline import Pipeline
from tests.train.runs import (
    ROOT,
    changed_parts,
    read_losses,
    run_module,
    run_processes,
    weights,
)
from train.checkpoints import CHECKPOINTS_FOLDER, find_checkpoint
from train.consolidate import consolidate, read_weights
from train.parts import PARTS
from train.stage_result import CODEBOOKS

pytestmark = pytest.mark.slow

CONFIGS = ROOT / "train" / "configs"
NUM_EXAMPLES = 48
NUM_STEPS = 4


def train_stage(folder: Path, name: str, *settings: str) -> list[float]:
    """Some steps of a stage on two processes; returns its losses."""
    run_processes(
        *("train.mllm", str(CONFIGS / f"{name}.yaml")),
        *("batch.samples_per_pack=4", f"data.num_samples={8 * NUM_STEPS}", "watch.samples=null"),
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
    runs = workplace / "runs"
    start = runs / "nano_align" / "init"
    losses = []
    for name, settings in stages.items():
        losses += train_stage(workplace, name, f"deepspeed={deepspeed}", *settings)
        before, after = load_file(start / "model.safetensors"), weights(runs / name)
        learning = {"projector"} if name == "nano_align" else set(PARTS)
        assert changed_parts(before, after) == learning
        start = runs / name / "model"
    assert len(losses) == 3 * NUM_STEPS
    assert losses[-1] < losses[0]
    check_codebooks(runs / "nano_finetune", workplace / f"consolidated_{deepspeed}")
    pipeline = Pipeline.from_pretrained(start, device="cpu")
    assert pipeline.chat("what color is the star?", "example:star", max_new_tokens=4) is not None
    assert pipeline.generate_images("a red star", num_images=1)[0].size == (64, 64)
    runs.rename(workplace / f"runs_{deepspeed}")


def check_codebooks(run: Path, output: Path) -> None:
    """They are the tokenizer's in a checkpoint's model, too: nothing of a stage moves them."""
    consolidate(run, output)
    pipeline = Pipeline.from_pretrained(output, device="cpu")
    codebooks = pipeline.tokenizer.quantizer.codebooks_KVD
    assert torch.equal(pipeline.model.visual_embedder.quantizer.codebooks_KVD, codebooks)
    kept = read_weights(find_checkpoint(run / CHECKPOINTS_FOLDER), is_sharded=True)[CODEBOOKS]
    # The training had them in bfloat16.
    assert torch.equal(kept, codebooks.to(torch.bfloat16).float())
