"""Sizes and token ids of a UniTok MLLM; stored as config.json."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

# What LLaMA-2-7B has besides LlamaConfig's own defaults.
LLAMA_2 = {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "pad_token_id": 0}


@strict
class UniTokMLLMConfig(PreTrainedConfig):
    """A LLaMA decoder that reads and draws pictures as codes of a UniTok tokenizer.

    The defaults are the released model: LLaMA-2-7B with 8 x 4096 codes on a 16 x 16 grid
    (arXiv 2502.20321).
    """

    model_type = "unitok_mllm"
    sub_configs = {"text_config": LlamaConfig}  # noqa: RUF012 - transformers' protocol

    text_config: Any = None  # LlamaConfig, or its values as config.json has them

    num_codebooks: int = 8  # K
    codebook_size: int = 4096  # V, entries of each codebook
    codebook_dim: int = 8  # width of one codebook entry
    grid: tuple[int, ...] | list[int] = (16, 16)  # rows and columns of a drawn picture

    projection_dim: int = 1024  # width of the attention projection that reads codes
    projection_heads: int = 16
    head_layers: int = 3  # layers of the visual head, each built like the decoder's

    boi_token_id: int = 3  # begin of image; LLaMA-2's byte token 0x00
    eoi_token_id: int = 4  # end of image; LLaMA-2's byte token 0x01
    image_token_id: int = -1  # placeholder of one visual token; -1: right after the vocabulary

    tokenizer_fingerprint: str | None = None  # of the tokenizer whose codes were trained on
    image_recipe: str = "chat"  # preprocessing of pictures that are read
    chat_template_name: str = "vicuna"

    def __post_init__(self, **kwargs: object) -> None:
        self.grid = tuple(self.grid)
        if self.text_config is None:
            self.text_config = LLAMA_2
        if isinstance(self.text_config, dict):
            self.text_config = LlamaConfig(**self.text_config)
        if not isinstance(self.text_config, LlamaConfig):  # transformers would fail on it below
            raise ValueError(
                f"text_config must describe a llama model, got {type(self.text_config).__name__}"
            )
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        if self.image_token_id == -1:
            self.image_token_id = self.text_config.vocab_size

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens L of a drawn picture."""
        rows, columns = self.grid
        return rows * columns

    @property
    def latent_dim(self) -> int:
        """Width of a visual token's codebook entries side by side."""
        return self.num_codebooks * self.codebook_dim

    # Methods called validate_* run when a config is built, loaded or saved.

    def validate_sizes(self) -> None:
        for name in ("num_codebooks", "codebook_size", "codebook_dim", "head_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise ValueError(f"grid must be (rows, columns) of at least 1, got {self.grid}")
        if self.projection_dim < self.latent_dim or self.projection_dim % self.projection_heads:
            raise ValueError(
                f"projection_dim must be a multiple of projection_heads={self.projection_heads} "
                f"and at least num_codebooks * codebook_dim = {self.latent_dim}, "
                f"got {self.projection_dim}"
            )

    def validate_decoder(self) -> None:
        if self.text_config.tie_word_embeddings:
            raise ValueError(
                "text_config.tie_word_embeddings must be false: the output layer is a weight of "
                "its own"
            )

    def validate_ids(self) -> None:
        vocab_size = self.text_config.vocab_size
        for name in ("boi_token_id", "eoi_token_id"):
            if not 0 <= getattr(self, name) < vocab_size:
                raise ValueError(
                    f"{name} must be in the vocabulary of {vocab_size}, got {getattr(self, name)}"
                )
        if self.boi_token_id == self.eoi_token_id:
            raise ValueError(f"boi_token_id and eoi_token_id must differ, got {self.boi_token_id}")
        if self.image_token_id < vocab_size:
            raise ValueError(
                f"image_token_id must be outside the vocabulary of {vocab_size}, "
                f"got {self.image_token_id}; no text may turn into a picture's placeholder"
            )


AutoConfig.register(UniTokMLLMConfig.model_type, UniTokMLLMConfig)
