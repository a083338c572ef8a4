"""What a stage leaves in its run folder: a model that `from_pretrained` takes, and adapters."""

from pathlib import Path

from peft import PeftModel

from mllm.image_tokenizer import TOKENIZER_FOLDER
from mllm.pipeline import Pipeline
from train.adapters import merge_saved_adapters
from train.trainer import MLLMTrainer

MODEL_FOLDER = "model"
ADAPTER_FOLDER = "adapter"
CODEBOOKS = "visual_embedder.quantizer.codebooks_KVD"


def save_result(trainer: MLLMTrainer, pipeline: Pipeline, run: Path, *, start: str) -> None:
    """The trained model with processor and tokenizer; adapters also alone. All processes call it.

    `start`: what the training began with, which adapters are added to.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, PeftModel):
        save_weights(trainer, pipeline, run / MODEL_FOLDER)
    elif trainer.is_world_process_zero():
        model.save_pretrained(str(run / ADAPTER_FOLDER))
        save_merged(run / ADAPTER_FOLDER, run / MODEL_FOLDER, start=start)


def save_merged(adapter: Path, folder: Path, *, start: str) -> None:
    """The model in `start` with a saved adapter added to its weights."""
    result = Pipeline.from_pretrained(start, device="cpu", dtype="float32")
    result.model = merge_saved_adapters(result.model, adapter)
    result.save_pretrained(folder)


def save_weights(trainer: MLLMTrainer, pipeline: Pipeline, folder: Path) -> None:
    """A model that learned in full; what ZeRO-3 has cut up is gathered from all processes."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    # DeepSpeed trains with all in bfloat16; the codebooks are the tokenizer's to the last digit.
    weights[CODEBOOKS] = pipeline.tokenizer.quantizer.codebooks_KVD
    pipeline.model.save_pretrained(folder, state_dict=weights)
    pipeline.processor.save_pretrained(folder)
    pipeline.tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
