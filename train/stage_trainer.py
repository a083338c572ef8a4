"""From a stage's settings to its trainer: what starts, what learns, and the Trainer's arguments."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from transformers import TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from mllm.model import UniTokMLLM
from mllm.pipeline import Pipeline
from train.adapters import add_adapters, build_quantization
from train.checkpoints import CHECKPOINTS_FOLDER, CompleteMarker
from train.deepspeed_settings import settings_for
from train.mllm_data import Packer
from train.parts import count_parameters, train_only
from train.samples import DrawSamples
from train.stage_config import Attention, StageConfig, StageOptimConfig, WatchConfig
from train.stage_data import StageData
from train.trainer import MLLMTrainer, ValidateAtEnd

logger = logging.getLogger(__name__)


def check_attention(name: Attention) -> None:
    """Raise ValueError for a kind of attention whose package is not installed."""
    if name == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise ValueError(
            "attention=flash_attention_2 needs the package flash-attn: pip install flash-attn, or "
            "set attention=packed_sdpa"
        )


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


def choose_trainable(config: StageConfig, model: UniTokMLLM) -> nn.Module:
    """What learns: parts of the model, or adapters on it."""
    if config.lora is None:
        train_only(model, config.trainable)
        return model
    return add_adapters(model, config.lora, trainable=config.trainable)


def training_arguments(config: StageConfig, run: Path) -> TrainingArguments:
    """Our settings in the Trainer's words."""
    batch, zero = config.batch, config.deepspeed
    return TrainingArguments(
        output_dir=str(run / CHECKPOINTS_FOLDER),
        run_name=run.name,
        per_device_train_batch_size=batch.samples_per_pack,
        per_device_eval_batch_size=batch.samples_per_pack,
        gradient_accumulation_steps=batch.accumulation,
        num_train_epochs=1,
        eval_strategy="steps" if config.data.all_validation else "no",
        bf16=config.precision == "bf16",
        activation_checkpointing=config.gradient_checkpointing,
        deepspeed=None if zero is None else settings_for(zero, config.optim.optimizer),
        dataloader_num_workers=config.data.num_workers,
        remove_unused_columns=False,
        use_cache=True,  # for the result's config.json; a forward pass with labels never caches
        label_names=["labels"],
        use_cpu=config.device == "cpu",
        seed=config.seed,
        ddp_find_unused_parameters=False,
        disable_tqdm=not PartialState().is_main_process,
        **optimizer_arguments(config.optim),
        **watch_arguments(config.watch),
    )


def optimizer_arguments(optim: StageOptimConfig) -> dict[str, Any]:
    return {
        "learning_rate": optim.lr,
        "adam_beta1": optim.betas[0],
        "adam_beta2": optim.betas[1],
        "adam_epsilon": optim.eps,
        "weight_decay": optim.weight_decay,
        "max_grad_norm": optim.clip_grad,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": optim.final_lr_share},
        "warmup_steps": optim.warmup_share,  # below 1 it is a share
    }


def watch_arguments(watch: WatchConfig) -> dict[str, Any]:
    return {
        "logging_steps": watch.log_every,
        "save_steps": watch.save_every,
        "save_total_limit": watch.keep_checkpoints,
        "eval_steps": watch.validate_every,
        # TensorBoard comes with the start, where the step is known.
        "report_to": [name for name in watch.report_to if name != "tensorboard"],
    }


def build_trainer(
    config: StageConfig, arguments: TrainingArguments, pipeline: Pipeline, data: StageData
) -> MLLMTrainer:
    pipeline.model.set_attn_implementation(config.attention)
    trainer = MLLMTrainer(
        choose_trainable(config, pipeline.model),
        arguments,
        run_folder=Path(config.output),
        source_names=[source.name for source in config.data.sources],
        validation_names=[source.name for source in config.data.all_validation],
        optim=config.optim,
        data_collator=Packer.for_config(pipeline.model.config),
        train_dataset=data.training,
        eval_dataset=data.validation,
        callbacks=[CompleteMarker(), ValidateAtEnd()],
    )
    if config.watch.samples is not None:
        samples = DrawSamples(pipeline, config.watch.samples, Path(config.output))
        samples.trackers = trainer.callback_handler.callbacks
        trainer.add_callback(samples)
    return trainer


def report_parts(trainer: MLLMTrainer) -> None:
    """What learns and what is frozen, once."""
    if trainer.is_world_process_zero():
        assert trainer.model is not None
        for part, (learning, total) in count_parameters(trainer.model).items():
            logger.info("%-12s %12d of %12d parameters learn", part, learning, total)
