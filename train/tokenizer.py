"""Train the image tokenizer, on one device or many.

    python -m train.tokenizer train/configs/tokenizer_nano.yaml output=runs/tokenizer
    torchrun --nproc_per_node 8 -m train.tokenizer CONFIG.yaml

A run folder holds config.yaml, log.jsonl, checkpoints/, samples/, the trackers' files, and in the
end model/ (and model_ema/), which `from_pretrained` and `init_from.tokenizer` take.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from mllm.console import announce, say, user_errors
from mllm.share import Share
from train.config import load_config, prepare_run_folder
from train.discriminator import outline_discriminator
from train.perceptual import PerceptualLoss
from train.picture_config import CropConfig, TokenizerDataConfig
from train.tokenizer_config import TokenizerConfig
from train.tokenizer_data import TokenizerData
from train.tokenizer_dry_run import describe_run
from train.tokenizer_preview import Preview
from train.tokenizer_scores import HeldOutScores
from train.tokenizer_start import initial_model
from train.tokenizer_trainer import TokenizerTrainer
from train.trackers import check_trackers, wandb_options
from unitok.model import UniTok

MODEL_FOLDER = "model"
AVERAGE_FOLDER = "model_ema"
TRACKED = "tokenizer"  # folder of TensorBoard's files, and project of W&B
PREVIEW_SEED = 2**63 - 1  # of an order that no training is likely to have

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def initial_weights(config: TokenizerConfig) -> UniTok:
    """The model that the config describes, as training begins."""
    return initial_model(config.model, config.init_from)


def train_tokenizer(config: TokenizerConfig, *, resume: bool = False) -> bool:
    """One run; returns False when a signal stopped it before its end (state is saved)."""
    trainer = open_run(config, resume=resume)
    finished = trainer.run()
    if finished and trainer.accelerator.is_main_process:
        save_result(trainer)
    trainer.accelerator.end_training()
    return finished


def open_run(
    config: TokenizerConfig,
    *,
    resume: bool,
    build_model: Callable[[TokenizerConfig], UniTok] = initial_weights,
) -> TokenizerTrainer:
    """All that a run needs, with its folder begun or its newest checkpoint loaded."""
    check_trackers(config.watch.report_to)
    accelerator = build_accelerator(config)
    data = open_data(config, accelerator)
    preview = open_preview(config, accelerator)
    scores = open_scores(config, accelerator)
    with accelerator.main_process_first():  # what is downloaded is there for the others
        set_seed(config.seed)
        model = build_model(config)
    trainer = TokenizerTrainer(
        config, model, accelerator=accelerator, data=data, preview=preview, scores=scores
    )
    with accelerator.main_process_first():  # all that may be missing was found: begin the folder
        if accelerator.is_main_process:
            prepare_run_folder(config, trainer.folder, resume=resume)
    if resume:
        trainer.resume()
    start_trackers(trainer)
    return trainer


def build_accelerator(config: TokenizerConfig) -> Accelerator:
    return Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=list(config.watch.report_to) or None,
        project_dir=config.output,
    )


def open_data(config: TokenizerConfig, accelerator: Accelerator) -> TokenizerData:
    """The share of this process; ValueError for a batch that cannot be shared."""
    config.batch.check_parts(accelerator.num_processes)
    return TokenizerData(
        config.data,
        model_config=config.model,
        batch_size=config.batch.size,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        num_workers=config.num_workers,
        seed=config.seed,
        pin_memory=accelerator.device.type == "cuda",
    )


def open_preview(config: TokenizerConfig, accelerator: Accelerator) -> Preview | None:
    """For the main process: the same pictures at any start, held-out ones if there are any."""
    if not accelerator.is_main_process:
        return None
    data = TokenizerData(
        preview_data(config),
        model_config=config.model,
        batch_size=config.watch.num_samples,
        num_workers=0,
        seed=PREVIEW_SEED,
    )
    pixels = data.first_batch().pixels
    return Preview(pixels.to(accelerator.device), Path(config.output))


def preview_data(config: TokenizerConfig) -> TokenizerDataConfig:
    """The source of the pictures to look at: a held-out one uncropped but for its shape."""
    if config.watch.source is None:
        return config.data
    return TokenizerDataConfig(source=config.watch.source, crop=CropConfig(kind="centre"))


def open_scores(config: TokenizerConfig, accelerator: Accelerator) -> HeldOutScores | None:
    """What measures held-out pictures now and then, if that is asked for."""
    if config.watch.scores is None:
        return None
    share = Share(accelerator.process_index, accelerator.num_processes)
    return HeldOutScores(
        config.watch.scores, Path(config.output), device=config.device, share=share
    )


def start_trackers(trainer: TokenizerTrainer) -> None:
    """TensorBoard forgets what it was told of steps that are taken again; W&B keeps it."""
    settings: dict[str, Any] = {"tensorboard": {"purge_step": trainer.step + 1}}
    if "wandb" in trainer.config.watch.report_to and trainer.accelerator.is_main_process:
        settings["wandb"] = wandb_options(trainer.folder)
    trainer.accelerator.init_trackers(TRACKED, init_kwargs=settings)


def save_result(trainer: TokenizerTrainer) -> None:
    """The trained weights, and their average."""
    trainer.model.save_pretrained(trainer.folder / MODEL_FOLDER)
    if trainer.average is not None:
        trainer.average.model.save_pretrained(trainer.folder / AVERAGE_FOLDER)


def dry_run(config: TokenizerConfig, processes: int) -> Iterator[str]:
    """What a run would do, line by line; nothing is written and no weight is read."""
    judges: dict[str, nn.Module] = {}
    with torch.device("meta"):
        model = UniTok(config.model)
        if config.weights.lpips:
            unread = config.perceptual.model_copy(update={"weights": "random"})
            judges["lpips"] = PerceptualLoss(unread)
        if config.weights.gan:
            judges["discriminator"] = outline_discriminator(config.adversary.network)
    yield from describe_run(config, model, judges=judges, processes=processes)


@app.command(
    help="Train an image tokenizer.\n\n"
    "Example: python -m train.tokenizer train/configs/tokenizer_nano.yaml output=runs/tokenizer"
)
def main(
    config: Annotated[Path, typer.Argument(help="YAML of the run")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, such as optim.lr=1e-4")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the output folder")] = False,
    only_describe: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the run would do")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="For --dry-run: processes (GPUs) on all machines")
    ] = 1,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with nullcontext() if debug else user_errors():
        settings = load_config(TokenizerConfig, config, overrides or [])
        if only_describe:
            for line in dry_run(settings, processes):
                say(line)
            return
        finished = train_tokenizer(settings, resume=resume)
    announce(
        f"the tokenizer is in {settings.output}/{MODEL_FOLDER}"
        if finished
        else "stopped and saved; go on with --resume"
    )


if __name__ == "__main__":
    app()
