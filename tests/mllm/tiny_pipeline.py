"""A whole pipeline of test size with random weights: 32-pixel pictures of 2 x 2 visual tokens."""

import torch
from transformers import LlamaConfig

from mllm.config import UniTokMLLMConfig
from mllm.generation import set_default_sampling
from mllm.model import UniTokMLLM
from mllm.pipeline import Pipeline
from mllm.processor import Processor
from mllm.sampling import SamplingParams
from tests.mllm.tiny_text import tiny_tokenizer
from unitok.config import UniTokConfig
from unitok.model import UniTok

CONTEXT_LENGTH = 96


def build_tiny_tokenizer() -> UniTok:
    torch.manual_seed(0)
    return UniTok(
        UniTokConfig(
            image_size=32,
            num_codebooks=4,
            codebook_size=32,
            codebook_dim=4,
            width=32,
            depth=1,
            num_heads=2,
            conv_widths=(16, 16),
            conv_depths=(1, 1),
            decoder_expand_ratio=2,
            feature_dim=16,
            text_width=16,
            text_heads=2,
            text_layers=1,
            text_vocab_size=600,
            text_context_length=8,
        )
    ).eval()


def build_tiny_config(grid: tuple[int, int] = (2, 2)) -> UniTokMLLMConfig:
    text_config = LlamaConfig(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        initializer_range=0.3,  # wide enough for random weights to prefer one token clearly
        pad_token_id=0,
    )
    return UniTokMLLMConfig(
        text_config=text_config,
        num_codebooks=4,
        codebook_size=32,
        codebook_dim=4,
        grid=grid,
        projection_dim=32,
        projection_heads=4,
        head_layers=1,
        chat_template_name="plain",
    )


def build_tiny_pipeline(grid: tuple[int, int] = (2, 2)) -> Pipeline:
    tokenizer = build_tiny_tokenizer()
    torch.manual_seed(1)
    model = UniTokMLLM(build_tiny_config(grid)).eval()
    model.adopt_tokenizer(tokenizer.quantizer, fingerprint=tokenizer.fingerprint)
    set_default_sampling(model, SamplingParams(guidance_scale=3.0))
    return Pipeline(model, Processor.for_config(model.config, tiny_tokenizer()), tokenizer)


class ScriptedHead(torch.nn.Module):
    """In place of `lm_head`: each token of text the model writes is the next one of a script."""

    def __init__(self, script: list[int], vocab_size: int) -> None:
        super().__init__()
        self.script = iter(script)
        self.vocab_size = vocab_size

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        logits = hidden_BTD.new_zeros(*hidden_BTD.shape[:-1], self.vocab_size)
        logits[..., next(self.script)] = 1.0
        return logits


def make_model_say(pipeline: Pipeline, *script: str | int) -> None:
    """Let the model write texts and special ids in turn, whatever was asked."""
    ids: list[int] = []
    for part in script:
        ids += pipeline.processor.tokenizer.encode(part) if isinstance(part, str) else [part]
    pipeline.model.lm_head = ScriptedHead(ids, len(pipeline.processor.tokenizer))
