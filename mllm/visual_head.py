"""Hidden state of a visual position -> its K sub-codes, one after another.

Paper: UniTok, arXiv 2502.20321, section 3.3 (a depth decoder). A stock LLaMA stack reads
[hidden, e0(c0), ..., e(K-2)(c(K-2))] and predicts sub-code k at position k; one linear layer with
bias is shared by all sub-codes.

Shapes: N visual positions, K codebooks, V codebook size, D decoder width.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from mllm.fast_decoder import SamePosition, build_rotation, read_positions
from mllm.row_buffers import RowBuffers

Sampler = Callable[[Tensor], Tensor]  # logits (N, V) of the next sub-code -> sub-codes (N,)


class VisualHead(nn.Module):
    """Predicts the sub-codes of visual positions, each position by itself."""

    def __init__(
        self, text_config: LlamaConfig, *, num_layers: int, num_codebooks: int, codebook_size: int
    ) -> None:
        super().__init__()
        self.num_codebooks = num_codebooks
        self.decoder = build_stack(text_config, num_layers)
        width = text_config.hidden_size
        self.sub_code_embeds = nn.ModuleList(
            nn.Embedding(codebook_size, width) for _ in range(num_codebooks - 1)
        )
        self.to_logits = nn.Linear(width, codebook_size)

    def forward(self, hidden_ND: Tensor, codes_NK: Tensor) -> Tensor:
        """Logits (N, K, V) of every sub-code given those before it (teacher forcing)."""
        prefix = [embed(codes_NK[:, k]) for k, embed in enumerate(self.sub_code_embeds)]
        inputs_NKD = torch.stack([hidden_ND, *prefix], dim=1)
        outputs = self.decoder(inputs_embeds=inputs_NKD, use_cache=False)
        return self.to_logits(outputs.last_hidden_state)

    @torch.no_grad()
    def generate(
        self, hidden_ND: Tensor, sampler: Sampler, *, cache: "HeadCache | None" = None
    ) -> Tensor:
        """Sample codes (N, K) for hidden states (N, D); what `cache` holds is overwritten."""
        cache = cache or HeadCache(self)
        cache.reserve(len(hidden_ND))
        inputs_ND, codes = hidden_ND, []
        for k, places in enumerate(cache.places):
            out_ND = read_positions(self.decoder, inputs_ND, places=places, buffers=cache.buffers)
            codes.append(sampler(self.to_logits(out_ND)))
            if k < len(self.sub_code_embeds):
                inputs_ND = self.sub_code_embeds[k](codes[k])
        return torch.stack(codes, dim=1)


class HeadCache:
    """Room for the K inputs of visual positions, used again for those that follow."""

    def __init__(self, head: VisualHead) -> None:
        device = head.to_logits.weight.device
        self.buffers = RowBuffers(head.decoder, num_positions=head.num_codebooks)
        self.places = [
            SamePosition(k, build_rotation(head.decoder, torch.tensor([k], device=device)))
            for k in range(head.num_codebooks)
        ]

    def reserve(self, num_rows: int) -> None:
        self.buffers.reserve(num_rows, self.buffers.num_positions)


def build_stack(text_config: LlamaConfig, num_layers: int) -> LlamaModel:
    """A LLaMA stack with the decoder's layer sizes, fed with embeddings only."""
    config = copy.deepcopy(text_config)
    config.num_hidden_layers = num_layers
    # The table of token embeddings is never looked up: keep it from being allocated.
    config.vocab_size = 1
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    stack = LlamaModel(config)
    stack.embed_tokens = None  # type: ignore[assignment]
    return stack
