"""Train one stage of the MLLM on code shards, on one device or many.

    python -m train.mllm train/configs/nano_finetune.yaml output=runs/finetune
    torchrun --nproc_per_node 8 -m train.mllm CONFIG.yaml deepspeed=zero3

A run folder holds config.yaml, checkpoints/checkpoint-N, log.jsonl, skipped_samples.jsonl where
samples were left out, and in the end model/, which `--model` and `from_pretrained` take.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import PartialState
from peft import PeftModel
from torch import nn
from transformers import TrainingArguments, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled

from mllm.config import UniTokMLLMConfig
from mllm.console import announce, quiet_libraries, say, user_errors
from mllm.image_tokenizer import TOKENIZER_FOLDER
from mllm.model import UniTokMLLM
from mllm.pipeline import Pipeline
from mllm.processor import Processor
from mllm.text_tokenizer import EOS_ID
from train.adapters import add_adapters, build_quantization, merge_saved_adapters
from train.checkpoints import CompleteMarker, StopOnSignal, find_start, step_of
from train.config import load_config, prepare_run_folder
from train.deepspeed_settings import settings_for
from train.dry_run import Machines, describe_stage
from train.mllm_data import MixtureDataset, MixtureSource, Packer, RowEncoder, open_mixture
from train.parts import count_parameters, train_only
from train.samples import DrawSamples
from train.stage_config import StageConfig
from train.stage_model import StartPlan, initial_folder, plan_start
from train.trackers import check_trackers, tensorboard_callback
from train.trainer import MLLMTrainer

CHECKPOINTS = "checkpoints"
MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"
CODEBOOKS = "visual_embedder.quantizer.codebooks_KVD"

logger = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, eq=False)
class StageData:
    """Samples to learn from and to validate on."""

    training: MixtureDataset
    validation: MixtureDataset | None


def run_stage(config: StageConfig, *, resume: bool = False) -> bool:
    """Train one stage; returns False when a signal stopped it before its end (state is saved)."""
    run = Path(config.output)
    state = PartialState(cpu=config.device == "cpu")
    # Both say what is wrong before there is a run folder.
    check_trackers(config.watch.report_to)
    _, data = open_start(config)
    with state.main_process_first():
        if state.is_main_process:
            prepare_run_folder(config, run, resume=resume)
        start = initial_folder(config.init_from, run, seed=config.seed)
    arguments = training_arguments(config, run)  # before the model: ZeRO-3 shards it as it loads
    set_seed(config.seed)
    pipeline = load_start(config, start, device=arguments.device)
    trainer = build_trainer(config, arguments, pipeline, data)
    report_parts(trainer)
    checkpoint = find_start(run / CHECKPOINTS) if resume else None
    if state.is_main_process:
        if resume:
            trainer.run_log.restore(checkpoint)
        if "tensorboard" in config.watch.report_to:
            step = 0 if checkpoint is None else step_of(checkpoint)
            trainer.add_callback(tensorboard_callback(run, step=step))
    with eager_on_cpu(arguments.device):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if trainer.state.global_step < trainer.state.max_steps:
        return False
    if checkpoint is None:
        trainer.check_learned()
    save_result(trainer, pipeline, run / MODEL_FOLDER, start=start)
    return True


def eager_on_cpu(device: torch.device) -> AbstractContextManager[Any]:
    """DeepSpeed compiles Muon, which a GPU gains from; a CPU would need a C++ compiler for it."""
    return torch.compiler.set_stance("force_eager") if device.type == "cpu" else nullcontext()


def load_start(config: StageConfig, folder: str, *, device: torch.device) -> Pipeline:
    """What the stage begins with, on the processor: the Trainer places it.

    Layers of 4 bits are made where they will stay. A model that ZeRO-3 cut up as it was loaded is
    moved here: DeepSpeed would leave its buffers, such as codebooks, where they are. All is
    float32, but for what adapters leave frozen.
    """
    compute_dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    quantization = build_quantization(config.lora, compute_dtype=compute_dtype)
    pipeline = Pipeline.from_pretrained(
        folder,
        device="cpu" if quantization is None else device,
        dtype="float32" if config.lora is None else config.lora.frozen_dtype,
        quantization=quantization,
    )
    if is_deepspeed_zero3_enabled():
        nn.Module.to(pipeline.model, device)  # transformers' own is annotated for another argument
    return pipeline


def dry_run(config: StageConfig, machines: Machines) -> Iterator[str]:
    """What the stage would do, line by line; nothing is written and no weight is read."""
    plan, data = open_start(config)
    with torch.device("meta"):
        model = choose_trainable(config, UniTokMLLM(plan.model_config))
    packer = build_packer(plan.model_config)
    yield from describe_stage(config, model, data.training, packer, machines=machines)


def open_start(config: StageConfig) -> tuple[StartPlan, StageData]:
    """All that a stage begins with but its weights."""
    plan = plan_start(config.init_from)
    context_length = plan.model_config.text_config.max_position_embeddings
    if config.data.rows.max_length > context_length:
        raise ValueError(
            f"data.rows.max_length is {config.data.rows.max_length}, but the model's context has "
            f"{context_length} positions; set it to at most that"
        )
    fingerprint = plan.model_config.tokenizer_fingerprint
    return plan, open_data(config, plan.processor, tokenizer_fingerprint=fingerprint)


def training_arguments(config: StageConfig, run: Path) -> TrainingArguments:
    """Our settings in the Trainer's words."""
    optim, batch, watch = config.optim, config.batch, config.watch
    return TrainingArguments(
        output_dir=str(run / CHECKPOINTS),
        per_device_train_batch_size=batch.samples_per_pack,
        per_device_eval_batch_size=batch.samples_per_pack,
        gradient_accumulation_steps=batch.accumulation,
        num_train_epochs=1,
        learning_rate=optim.lr,
        adam_beta1=optim.betas[0],
        adam_beta2=optim.betas[1],
        adam_epsilon=optim.eps,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.clip_grad,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": optim.final_lr_share},
        warmup_steps=optim.warmup_share,
        bf16=config.precision == "bf16",
        activation_checkpointing=config.gradient_checkpointing,
        logging_steps=watch.log_every,
        save_steps=watch.save_every,
        save_total_limit=watch.keep_checkpoints,
        eval_strategy="steps" if config.data.validation else "no",
        eval_steps=watch.validate_every,
        # TensorBoard comes with the start, where the step is known.
        report_to=[name for name in watch.report_to if name != "tensorboard"],
        run_name=run.name,
        deepspeed=None
        if config.deepspeed is None
        else settings_for(config.deepspeed, config.optim.optimizer),
        dataloader_num_workers=config.data.num_workers,
        remove_unused_columns=False,
        use_cache=True,  # for the result's config.json; a forward pass with labels never caches
        label_names=["labels"],
        use_cpu=config.device == "cpu",
        seed=config.seed,
        ddp_find_unused_parameters=False,
        disable_tqdm=not PartialState().is_main_process,
    )


def choose_trainable(config: StageConfig, model: UniTokMLLM) -> nn.Module:
    """What learns: parts of the model, or adapters on it."""
    if config.lora is None:
        train_only(model, config.trainable)
        return model
    return add_adapters(model, config.lora, trainable=config.trainable)


def open_data(
    config: StageConfig, processor: Processor, *, tokenizer_fingerprint: str | None
) -> StageData:
    """Open all sources; codes of another tokenizer are refused."""
    data = config.data
    encoder = RowEncoder(processor, data.rows)

    def open_sources(
        sources: Sequence[MixtureSource], num_samples: int | None, *, multiple_of: int
    ) -> MixtureDataset:
        return open_mixture(
            sources,
            encoder,
            tokenizer_fingerprint=tokenizer_fingerprint,
            num_samples=num_samples,
            seed=data.seed,
            multiple_of=multiple_of,
        )

    per_batch = config.batch.samples_per_pack * PartialState().num_processes
    per_step = per_batch * config.batch.accumulation
    training = open_sources(data.sources, data.num_samples, multiple_of=per_step)
    if not data.validation:
        return StageData(training, None)
    validation = open_sources(data.validation, data.num_validation, multiple_of=per_batch)
    return StageData(training, validation)


def build_trainer(
    config: StageConfig, arguments: TrainingArguments, pipeline: Pipeline, data: StageData
) -> MLLMTrainer:
    pipeline.model.set_attn_implementation(config.attention)
    trainer = MLLMTrainer(
        choose_trainable(config, pipeline.model),
        arguments,
        run_folder=Path(config.output),
        source_names=[source.name for source in config.data.sources],
        validation_names=[source.name for source in config.data.validation],
        optim=config.optim,
        data_collator=build_packer(pipeline.model.config),
        train_dataset=data.training,
        eval_dataset=data.validation,
        callbacks=[StopOnSignal(), CompleteMarker()],
    )
    if config.watch.samples is not None:
        samples = DrawSamples(pipeline, config.watch.samples, Path(config.output))
        samples.trackers = trainer.callback_handler.callbacks
        trainer.add_callback(samples)
    return trainer


def build_packer(config: UniTokMLLMConfig) -> Packer:
    return Packer(
        num_visual_tokens=config.num_visual_tokens,
        num_codebooks=config.num_codebooks,
        filler_id=EOS_ID,
    )


def report_parts(trainer: MLLMTrainer) -> None:
    """What learns and what is frozen, once."""
    if trainer.is_world_process_zero():
        assert trainer.model is not None
        for part, (learning, total) in count_parameters(trainer.model).items():
            logger.info("%-12s %12d of %12d parameters learn", part, learning, total)


def save_result(trainer: MLLMTrainer, pipeline: Pipeline, folder: Path, *, start: str) -> None:
    """The trained model with processor and tokenizer; adapters also alone."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        if not trainer.is_world_process_zero():
            return
        adapter = folder.with_name(ADAPTER_FOLDER)
        model.save_pretrained(str(adapter))
        result = Pipeline.from_pretrained(start, device="cpu", dtype="float32")
        result.model = merge_saved_adapters(result.model, adapter)
        result.save_pretrained(folder)
        return
    # Gathers what ZeRO-3 has cut up; every process takes part.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    # DeepSpeed trains with all in bfloat16; the codebooks are the tokenizer's to the last digit.
    weights[CODEBOOKS] = pipeline.tokenizer.quantizer.codebooks_KVD
    model.save_pretrained(folder, state_dict=weights)
    pipeline.processor.save_pretrained(folder)
    pipeline.tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)


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
            return
        finished = run_stage(stage, resume=resume)
    if PartialState().is_main_process:
        end = f"the model is in {stage.output}/{MODEL_FOLDER}"
        announce(end if finished else "stopped and saved; go on with --resume")


if __name__ == "__main__":
    app()
