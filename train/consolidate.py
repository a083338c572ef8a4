"""Turn a checkpoint of `train.mllm` into a folder that `from_pretrained` takes, at any time.

    python -m train.consolidate runs/finetune -o models/finetune

Handles what the run wrote: whole weights, ZeRO shards or adapters. ZeRO shards are read by
DeepSpeed, which unpickles them: consolidate only runs of your own.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from mllm.console import announce, user_errors
from mllm.pipeline import Pipeline
from train.adapters import merge_saved_adapters
from train.checkpoints import find_checkpoint
from train.config import saved_settings
from train.deepspeed_settings import read_zero
from train.mllm import CHECKPOINTS
from train.stage_config import StageConfig
from train.stage_model import initial_folder
from unitok.checkpoint import load_folder

ADAPTER_FILE = "adapter_model.safetensors"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def consolidate(run: Path, output: Path, *, step: int | None = None) -> Path:
    """Write the newest checkpoint, or that of `step`; returns the checkpoint's folder."""
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty; name a new folder")
    config = saved_settings(StageConfig, run)
    checkpoint = find_checkpoint(run / CHECKPOINTS, step=step)
    start = initial_folder(config.init_from, run, seed=config.seed)
    pipeline = Pipeline.from_pretrained(start, device="cpu", dtype="float32")
    if (checkpoint / ADAPTER_FILE).is_file():
        pipeline.model = merge_saved_adapters(pipeline.model, checkpoint)
    else:
        is_sharded = config.deepspeed is not None and read_zero(config.deepspeed).stage > 1
        pipeline.model.load_state_dict(read_weights(checkpoint, is_sharded=is_sharded))
    pipeline.save_pretrained(output)
    return checkpoint


def read_weights(checkpoint: Path, *, is_sharded: bool) -> dict[str, Tensor]:
    """All weights of a checkpoint in float32, from ZeRO's shards or from safetensors.

    ZeRO-1 keeps the weights whole, and DeepSpeed cannot read its shards when it trained in bfloat16
    with sums in float32.
    """
    if is_sharded:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        weights: dict[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint))
        return weights
    return {name: value.to(torch.float32) for name, value in load_folder(checkpoint).items()}


@app.command(
    help="Turn a checkpoint into a model folder.\n\n"
    "Example: python -m train.consolidate runs/finetune -o models/finetune"
)
def main(
    run: Annotated[Path, typer.Argument(help="Run folder of train.mllm")],
    output: Annotated[Path, typer.Option("-o", help="New folder")],
    step: Annotated[int | None, typer.Option(help="By default the newest checkpoint")] = None,
) -> None:
    with user_errors():
        checkpoint = consolidate(run, output, step=step)
    announce(f"wrote {checkpoint} as {output}")


if __name__ == "__main__":
    app()
