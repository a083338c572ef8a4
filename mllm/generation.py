"""Drawing pictures: contexts that end in begin-of-image -> codes, one visual token at a time.

Each picture is a program of its own (`mllm.drawing_programs`), and all run side by side
(`mllm.batcher`).

Shapes: B pictures, N rows (2B with guidance: conditional, then unconditional; else B), T context
length, L visual tokens, K codebooks, D decoder width.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields

import torch
from torch import Tensor
from transformers import GenerationConfig

from mllm.batcher import Batcher
from mllm.drawing_programs import draw_contexts
from mllm.model import UniTokMLLM
from mllm.running_pictures import Projection
from mllm.sampling import SamplingParams

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
        progress: called after each step.
    """
    sampling = sampling or default_sampling(model)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    check_contexts(model, input_ids, attention_mask)
    num_pictures = count_pictures(len(input_ids), sampling)
    seeds = _seeds_of(num_pictures, seeds)
    contexts = _embed_rows(model, input_ids, attention_mask, codes=codes)
    programs = [
        draw_contexts(contexts[picture::num_pictures], sampling, seed=seed, config=model.config)
        for picture, seed in enumerate(seeds)
    ]
    batcher = Batcher(model, projection=projection)
    report = report_tokens(batcher, progress, num_pictures=num_pictures)
    return torch.stack(batcher.run_all(programs, max_active=num_pictures, after_step=report))


def _embed_rows(
    model: UniTokMLLM, input_ids: Tensor, attention_mask: Tensor, *, codes: Tensor | None
) -> list[Tensor]:
    """Embeddings (T, D) of each row without its padding."""
    embeds_NTD = model.embed(input_ids, codes)
    lengths = attention_mask.sum(dim=1).tolist()
    return [
        embeds_TD[len(embeds_TD) - length :]
        for embeds_TD, length in zip(embeds_NTD, lengths, strict=True)
    ]


def report_tokens(
    batcher: Batcher, progress: Progress | None, *, num_pictures: int
) -> Callable[[], None]:
    """What tells of visual tokens that `batcher` has drawn from now on, after each step."""
    first, seen = batcher.pictures.num_drawn, 0

    def report() -> None:
        nonlocal seen
        done = batcher.pictures.num_drawn - first
        if progress is not None and done > seen:
            progress(done, num_pictures * batcher.model.config.num_visual_tokens)
        seen = done

    return report


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
