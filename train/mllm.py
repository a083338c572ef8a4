"""Train one stage of the MLLM on code shards, on one device or many.

    python -m train.mllm train/configs/nano_finetune.yaml output=runs/finetune
    torchrun --nproc_per_node 8 -m train.mllm CONFIG.yaml deepspeed=zero3

A run folder holds config.yaml, checkpoints/checkpoint-N, log.jsonl, skipped_samples.jsonl where
samples were left out, and in the end model/, which `--model` and `from_pretrained` take.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import PartialState
from transformers import set_seed

from mllm.console import announce, quiet_libraries, say, user_errors
from mllm.model import UniTokMLLM
from train.checkpoints import CHECKPOINTS_FOLDER, StopOnSignal, find_start, step_of
from train.config import load_config, prepare_run_folder
from train.dry_run import describe_stage
from train.memory_estimate import Machines
from train.mllm_data import Packer
from train.stage_config import StageConfig
from train.stage_data import StageData, open_start
from train.stage_model import initial_folder
from train.stage_result import MODEL_FOLDER, save_result
from train.stage_trainer import (
    build_trainer,
    check_attention,
    choose_trainable,
    load_start,
    report_parts,
    training_arguments,
)
from train.stop_request import StopRequest
from train.trackers import check_trackers, tensorboard_callback
from train.trainer import MLLMTrainer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def run_stage(config: StageConfig, *, resume: bool = False) -> bool:
    """Train one stage; returns False when a signal stopped it before its end (state is saved)."""
    run = Path(config.output)
    data, start = prepare_run(config, run, resume=resume)
    arguments = training_arguments(config, run)  # before the model: ZeRO-3 shards it as it loads
    set_seed(config.seed)
    pipeline = load_start(config, start, device=arguments.device)
    trainer = build_trainer(config, arguments, pipeline, data)
    report_parts(trainer)
    checkpoint = find_start(run / CHECKPOINTS_FOLDER) if resume else None
    restore_log(config, trainer, checkpoint, resume=resume)
    with StopRequest() as stop, eager_on_cpu(arguments.device):
        trainer.add_callback(StopOnSignal(stop))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if trainer.state.global_step < trainer.state.max_steps:
        return False
    if checkpoint is None:
        trainer.check_learned()
    save_result(trainer, pipeline, run, start=start)
    return True


def prepare_run(config: StageConfig, run: Path, *, resume: bool) -> tuple[StageData, str]:
    """Open the data and make the run folder; returns the folder of the model to begin with too.

    What can be wrong with settings, data and machine is said before there is a run folder.
    """
    state = PartialState(cpu=config.device == "cpu")
    check_trackers(config.watch.report_to)
    check_attention(config.attention)
    _, data = open_start(config)
    with state.main_process_first():
        if state.is_main_process:
            prepare_run_folder(config, run, resume=resume)
        return data, initial_folder(config.init_from, run, seed=config.seed)


def restore_log(
    config: StageConfig, trainer: MLLMTrainer, checkpoint: Path | None, *, resume: bool
) -> None:
    """Let log and TensorBoard go on from a checkpoint, or begin; the main process keeps both."""
    if not trainer.is_world_process_zero():
        return
    if resume:
        trainer.run_log.restore(checkpoint)
    if "tensorboard" in config.watch.report_to:
        step = 0 if checkpoint is None else step_of(checkpoint)
        trainer.add_callback(tensorboard_callback(Path(config.output), step=step))


def eager_on_cpu(device: torch.device) -> AbstractContextManager[Any]:
    """DeepSpeed compiles Muon, which a GPU gains from; a CPU would need a C++ compiler for it."""
    return torch.compiler.set_stance("force_eager") if device.type == "cpu" else nullcontext()


def dry_run(config: StageConfig, machines: Machines) -> Iterator[str]:
    """What the stage would do, line by line; nothing is written, and no MLLM is loaded."""
    plan, data = open_start(config)
    with torch.device("meta"):
        model = choose_trainable(config, UniTokMLLM(plan.model_config))
    packer = Packer.for_config(plan.model_config)
    yield from describe_stage(config, model, data.training, packer, machines=machines)


@app.command(
    help="Train one stage of the MLLM.\n\n"
    "Example: python -m train.mllm train/configs/nano_finetune.yaml output=runs/finetune"
)
def main(
    config: Annotated[Path, typer.Argument(help="YAML of the stage")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, such as optim.lr=1e-5")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the output folder")] = False,
    only_describe: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the stage would do")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="For --dry-run: processes (GPUs) on each machine")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="For --dry-run: machines")] = 1,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    quiet_libraries()
    with nullcontext() if debug else user_errors():
        stage = load_config(StageConfig, config, overrides or [])
        if only_describe:
            machines = Machines(processes or PartialState().num_processes, nodes)
            for line in dry_run(stage, machines):
                say(line)
        else:
            announce_end(stage, is_finished=run_stage(stage, resume=resume))


def announce_end(stage: StageConfig, *, is_finished: bool) -> None:
    if PartialState().is_main_process:
        end = f"the model is in {stage.output}/{MODEL_FOLDER}"
        announce(end if is_finished else "stopped and saved; go on with --resume")


if __name__ == "__main__":
    app()
