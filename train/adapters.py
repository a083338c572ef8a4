"""LoRA adapters (arXiv 2106.09685) on the language model, through peft; QLoRA (arXiv 2305.14314).

The visual parts have no adapters: those that a stage names learn in full beside them. QLoRA keeps
the language model's frozen linear layers in 4 bits, through bitsandbytes.
"""

import importlib.util
from collections.abc import Collection
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import BitsAndBytesConfig

from mllm.model import UniTokMLLM
from train.parts import PARTS
from train.stage_config import LoraSettings

# Linear layers of the decoder; the visual head's layers have the same names under another module.
TARGETS = r"decoder\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"


def add_adapters(
    model: UniTokMLLM, settings: LoraSettings, *, trainable: Collection[str]
) -> PeftModel:
    """The model with adapters, and full copies of the visual parts that learn."""
    if "llm" not in trainable:
        raise ValueError(
            f"lora adapts the llm, but trainable is {sorted(trainable)}; add llm, or leave lora out"
        )
    full = [
        prefix.removesuffix(".")
        for part in sorted(set(trainable) - {"llm"})
        for prefix in PARTS[part]
    ]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=TARGETS,
        modules_to_save=full or None,
    )
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def build_quantization(
    settings: LoraSettings | None, *, compute_dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    """How the language model's linear layers are kept, if not as they are."""
    if settings is None or settings.quantization is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "lora.quantization needs the package bitsandbytes: pip install bitsandbytes, or leave "
            "it out for LoRA without quantization"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=["visual_embedder", "visual_head", "lm_head"],
    )


def merge_saved_adapters(model: UniTokMLLM, folder: Path) -> UniTokMLLM:
    """`model` with the adapters and the visual parts in `folder` added to its weights.

    The model is the one that the training started from, not quantized: weights of 4 bits have no
    room for what the adapters learned.
    """
    merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    assert isinstance(merged, UniTokMLLM)
    return merged
