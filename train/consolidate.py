"""Turn a checkpoint of `train.mllm` into a folder that `from_pretrained` takes, at any time.

    python -m train.consolidate runs/finetune -o models/finetune

Handles what the run wrote: whole weights, ZeRO shards or adapters. ZeRO shards are read by
DeepSpeed, which unpickles them: consolidate only runs of your own.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from mllm.console import announce, user_errors
from mllm.pipeline import Pipeline
from train.checkpoints import CHECKPOINTS_FOLDER, find_checkpoint
from train.config import saved_settings
from train.deepspeed_settings import read_zero
from train.stage_config import StageConfig
from train.stage_model import initial_folder
from train.stage_result import CODEBOOKS, save_merged
from unitok.checkpoint import load_folder

ADAPTER_FILE = "adapter_model.safetensors"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def consolidate(run: Path, output: Path, *, step: int | None = None, force: bool = False) -> Path:
    """Write the newest checkpoint, or that of `step`; returns the checkpoint's folder.

    `force`: also over a model that is there.
    """
    if output.exists() and any(output.iterdir()) and not force:
        raise ValueError(
            f"{output} is not empty; pass --force to overwrite it, or name a new folder"
        )
    config = saved_settings(StageConfig, run)
    checkpoint = find_checkpoint(run / CHECKPOINTS_FOLDER, step=step)
    start = initial_folder(config.init_from, run, seed=config.seed)
    if (checkpoint / ADAPTER_FILE).is_file():
        save_merged(checkpoint, output, start=start)
    else:
        pipeline = Pipeline.from_pretrained(start, device="cpu", dtype="float32")
        is_sharded = config.deepspeed is not None and read_zero(config.deepspeed).stage > 1
        weights = read_weights(checkpoint, is_sharded=is_sharded)
        # DeepSpeed trains with all in bfloat16; the codebooks are the tokenizer's.
        weights[CODEBOOKS] = pipeline.tokenizer.quantizer.codebooks_KVD
        pipeline.model.load_state_dict(weights)
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
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks")] = False,
) -> None:
    with nullcontext() if debug else user_errors():
        checkpoint = consolidate(run, output, step=step, force=force)
    announce(f"wrote {checkpoint} as {output}")


if __name__ == "__main__":
    app()
