"""The config of an MLLM around an image tokenizer, whose sizes it has to share; how it draws."""

from typing import Any

from mllm.config import UniTokMLLMConfig
from train.config import RunConfig
from unitok.config import PATCH_SIZE
from unitok.model import UniTok


class SamplingDefaults(RunConfig):
    """How the trained model draws unless told otherwise."""

    guidance_scale: float = 3.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


def build_model_config(
    text_config: Any,
    tokenizer: UniTok,
    *,
    projection_dim: int,
    projection_heads: int,
    head_layers: int,
    chat_template: str,
) -> UniTokMLLMConfig:
    """`text_config` (a LlamaConfig or its values) with what the image tokenizer dictates."""
    side = tokenizer.config.image_size // PATCH_SIZE
    return UniTokMLLMConfig(
        text_config=text_config,
        num_codebooks=tokenizer.config.num_codebooks,
        codebook_size=tokenizer.config.codebook_size,
        codebook_dim=tokenizer.config.codebook_dim,
        grid=(side, side),
        projection_dim=projection_dim,
        projection_heads=projection_heads,
        head_layers=head_layers,
        tokenizer_fingerprint=tokenizer.fingerprint,
        chat_template_name=chat_template,
    )
