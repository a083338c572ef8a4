"""Drawing pictures: contexts that end in begin-of-image -> codes, one visual token at a time.

Per visual token: the decoder's last hidden state -> visual head, K sub-codes -> visual embedder
-> decoder. All three keep what they have seen: static caches, allocated once per call; no step
waits for a value to reach the host.

Shapes: B pictures, N rows (2B with guidance: conditional, then unconditional; else B), T context
length, L visual tokens, K codebooks, D decoder width.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import GenerationConfig, StaticCache

from mllm.model import UniTokMLLM
from mllm.sampling import SamplingParams, SubCodeSampler, build_noise

Projection = Literal["cached", "single"]
Progress = Callable[[int, int], None]  # visual tokens drawn, visual tokens in all

MAX_SEED = 2**63 - 1
_SAMPLING_KEYS = tuple(field.name for field in fields(SamplingParams))


def default_sampling(model: UniTokMLLM) -> SamplingParams:
    """The model's own settings: `image_sampling` in its generation_config.json, if it has any.

    They have a name of their own because transformers' `guidance_scale` and `temperature` in the
    same file are about text.
    """
    values = getattr(model.generation_config, "image_sampling", None) or {}
    try:
        return SamplingParams(**values)
    except TypeError as error:
        raise ValueError(
            f"image_sampling in generation_config.json must hold {', '.join(_SAMPLING_KEYS)}, "
            f"got {values}"
        ) from error


def set_default_sampling(model: UniTokMLLM, sampling: SamplingParams) -> None:
    """Make `sampling` the model's own settings; `save_pretrained` writes them down."""
    values = model.generation_config.to_dict()
    # A config marked as derived from config.json would forget foreign values when it is loaded.
    values.pop("_from_model_config", None)
    values["image_sampling"] = asdict(sampling)
    model.generation_config = GenerationConfig(**values)


@torch.no_grad()
def generate_codes(
    model: UniTokMLLM,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    codes: Tensor | None = None,
    *,
    sampling: SamplingParams | None = None,
    seeds: Sequence[int] | None = None,
    projection: Projection = "cached",
    progress: Progress | None = None,
) -> Tensor:
    """Draw B pictures; returns their codes (B, L, K) int64.

    Args:
        input_ids: (N, T) contexts, padded on the left, each ending in begin-of-image. With a
            guidance scale other than 1, N = 2B: the conditional rows, then the unconditional
            ones in the same order.
        attention_mask: (N, T), 0 for padding; None: no padding.
        codes: (P, L, K), earlier pictures in the contexts, in reading order.
        sampling: None: the model's own settings.
        seeds: one per picture; a picture depends on its seed, not on its neighbours in the
            batch. None: drawn from torch's global generator.
        projection: `cached` lets a visual token see those before it, as in training; `single`
            projects each one alone, as the official sampler does.
        progress: called after each visual token.
    """
    sampling = sampling or default_sampling(model)
    if projection not in get_args(Projection):
        raise ValueError(f"projection must be cached or single, got {projection!r}")
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    check_contexts(model, input_ids, attention_mask)
    num_pictures = count_pictures(len(input_ids), sampling)
    noise_BLK = build_noise(
        _seeds_of(num_pictures, seeds), model.config.num_visual_tokens, model.config.num_codebooks
    )
    sampler = SubCodeSampler(sampling, noise_BLK.to(input_ids.device))
    context = PictureContext(model, input_ids, attention_mask, codes=codes)
    return context.draw(sampler, num_pictures, projection=projection, progress=progress)


class PictureContext:
    """A decoder that has read N contexts and goes on with visual tokens."""

    def __init__(
        self,
        model: UniTokMLLM,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        codes: Tensor | None = None,
    ) -> None:
        self.model = model
        num_new = model.config.num_visual_tokens - 1  # the last one is drawn, never read
        self.cache = StaticCache(
            config=model.decoder.config, max_cache_len=input_ids.shape[1] + num_new
        )
        self.positions_NT = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        outputs = model.decoder(
            inputs_embeds=model.embed(input_ids, codes),
            attention_mask=attention_mask,
            position_ids=self.positions_NT,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.hidden_ND = outputs.last_hidden_state[:, -1]
        self.mask_NT = torch.cat(
            [attention_mask, attention_mask.new_ones(len(input_ids), num_new)], dim=1
        )

    def draw(
        self,
        sampler: SubCodeSampler,
        num_pictures: int,
        *,
        projection: Projection = "cached",
        progress: Progress | None = None,
    ) -> Tensor:
        """Codes (B, L, K) of the pictures that follow the contexts; can be called once."""
        head, embedder = self.model.visual_head, self.model.visual_embedder
        num_tokens = self.model.config.num_visual_tokens
        head_cache = head.build_cache()
        projection_cache = None
        if projection == "cached":
            projection_cache = embedder.build_cache(num_pictures, num_tokens)
        drawn = []
        for step in range(num_tokens):
            codes_NK = head.generate(self.hidden_ND, sampler, cache=head_cache)
            drawn.append(codes_NK[:num_pictures])
            if progress is not None:
                progress(step + 1, num_tokens)
            if step + 1 < num_tokens:
                # Both halves have the same codes: they are embedded once.
                embeds_B1D = embedder(drawn[-1].unsqueeze(1), projection_cache)
                self._read(embeds_B1D.repeat(len(codes_NK) // num_pictures, 1, 1), step)
        return torch.stack(drawn, dim=1)

    def _read(self, embeds_N1D: Tensor, step: int) -> None:
        outputs = self.model.decoder(
            inputs_embeds=embeds_N1D,
            attention_mask=self.mask_NT,
            position_ids=self.positions_NT[:, -1:] + (step + 1),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.hidden_ND = outputs.last_hidden_state[:, -1]


def count_pictures(num_rows: int, sampling: SamplingParams) -> int:
    """B of N rows; raises ValueError if guidance finds no unconditional half."""
    if not sampling.is_guided:
        return num_rows
    if num_rows % 2:
        raise ValueError(
            f"guidance_scale={sampling.guidance_scale} needs conditional and as many unconditional "
            f"rows, got {num_rows} rows in all; add the missing rows or set guidance_scale=1"
        )
    return num_rows // 2


def check_contexts(model: UniTokMLLM, input_ids: Tensor, attention_mask: Tensor) -> None:
    """Raise ValueError for contexts that no picture can follow."""
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before drawing")
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask must have the shape of input_ids {tuple(input_ids.shape)}, "
            f"got {tuple(attention_mask.shape)}"
        )
    if (attention_mask.diff(dim=1) < 0).any() or not attention_mask[:, -1].all():
        raise ValueError("contexts must be padded on the left, got padding after a token")
    if (input_ids[:, -1] != model.config.boi_token_id).any():
        raise ValueError(
            f"each context must end in begin-of-image (id {model.config.boi_token_id}), "
            f"got ids {sorted(set(input_ids[:, -1].tolist()))} there"
        )
    length = input_ids.shape[1] + model.config.num_visual_tokens
    max_length = model.config.text_config.max_position_embeddings
    if length > max_length:
        raise ValueError(
            f"context and picture take {length} positions, the model has {max_length}; "
            "shorten the context"
        )


def _seeds_of(num_pictures: int, seeds: Sequence[int] | None) -> Sequence[int]:
    if seeds is None:
        return torch.randint(MAX_SEED, (num_pictures,)).tolist()
    if len(seeds) != num_pictures:
        raise ValueError(f"expected one seed for each of {num_pictures} pictures, got {len(seeds)}")
    return seeds
