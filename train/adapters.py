"""LoRA adapters (arXiv 2106.09685) on the language model, through peft.

The visual parts have no adapters: those that a stage names learn in full beside them.
"""

from collections.abc import Collection

from peft import LoraConfig, PeftModel, get_peft_model

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


def merge_adapters(adapted: PeftModel) -> UniTokMLLM:
    """The plain model with the adapters added to its weights; `adapted` is used up."""
    merged = adapted.merge_and_unload()
    assert isinstance(merged, UniTokMLLM)
    return merged
