"""Speed and memory of drawing, in several variants that do the same.

`plain` is the loop as one would first write it, eager and in float32: stock modules, a decoder
cache that grows, and a visual head that computes its prefix anew for each sub-code. `float32` is
ours at equal precision; `bfloat16` is ours in half of the memory. Each variant runs in a process
of its own, so that no memory counts for another.

Shapes: B pictures, N rows (2B, guided), L visual tokens, K codebooks.
"""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache

from eval.precision import full_precision
from eval.step_memory import StepMemory
from mllm.batcher import Batcher
from mllm.config import LLAMA_2, UniTokMLLMConfig
from mllm.drawing_programs import draw_contexts
from mllm.model import UniTokMLLM
from mllm.sampling import SamplingParams, guide

VARIANTS = ("plain", "float32", "bfloat16")
SAMPLING = SamplingParams(guidance_scale=3.0, temperature=0)
CONTEXT_LENGTH = 24  # ids of a prompt with its begin-of-image
GRID_COLUMNS = 16
PICTURE_TOKENS = 256  # of a whole picture, at 256 pixels
SHAPES: dict[str, dict[str, Any]] = {
    "200m": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "7b": {},
}


@dataclass(frozen=True)
class GenerationRequest:
    """What to measure, the same for every variant."""

    shape: str = "nano"  # of the embedded model, or one of SHAPES with seeded weights
    batch_size: int = 1
    num_rows: int | None = None  # of the grid that are drawn; None: all
    repeats: int = 3
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True, eq=False)
class GenerationSpeed:
    """Of one variant."""

    seconds: float  # for a batch of whole pictures
    peak_gib: float  # above what is held between runs
    read_gib: float  # weights that one visual token has to read
    codes: NDArray  # (B, L, K), drawn greedily
    num_sub_codes: int  # of a whole picture
    forced_agreement: float | None  # share of greedy sub-codes, given all before them

    def floor_seconds(self, bandwidth: float) -> float:
        """What reading the weights takes at so many GB/s."""
        num_codebooks = self.codes.shape[-1]
        return self.read_gib * 2**30 * self.num_sub_codes / num_codebooks / (bandwidth * 1e9)


def measure(
    request: GenerationRequest, variant: str, *, codes: NDArray | None = None
) -> GenerationSpeed:
    """Draw greedily; `codes` of the plain variant are what the forced choices follow."""
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    torch.set_num_threads(request.threads)
    device = torch.device(request.device)
    dtype = torch.bfloat16 if variant == "bfloat16" else torch.float32
    model = build_model(request)
    nn.Module.to(model, device, dtype)
    contexts = build_contexts(model, request.batch_size)
    draw = draw_plain if variant == "plain" else OurDrawing(model)
    with torch.no_grad(), full_precision():
        drawn_BLK, seconds, peak_gib = _time(
            lambda: draw(model, contexts), request.repeats, device=device
        )
        agreement = None
        if codes is not None:
            given_BLK = torch.from_numpy(codes).to(device)
            choices_BLK = choose_forced(model, contexts, given_BLK)
            agreement = float((choices_BLK == given_BLK).float().mean())
    num_tokens = model.config.num_visual_tokens
    whole = num_tokens if request.shape == "nano" else PICTURE_TOKENS
    return GenerationSpeed(
        seconds * whole / num_tokens,
        peak_gib,
        count_read_bytes(model) / 2**30,
        drawn_BLK.cpu().numpy(),
        whole * model.config.num_codebooks,
        agreement,
    )


def measure_apart(
    request: GenerationRequest, variant: str, *, codes: NDArray | None = None
) -> GenerationSpeed:
    """`measure` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (request, variant), {"codes": codes})


def build_model(request: GenerationRequest) -> UniTokMLLM:
    """The embedded model, or one of the shape with seeded weights."""
    if request.shape == "nano":
        if request.num_rows is not None:
            raise ValueError("nano draws whole pictures; leave the number of rows out")
        model: UniTokMLLM = UniTokMLLM.from_pretrained("nano", dtype=torch.float32)
        return model.eval()
    if request.shape not in SHAPES:
        raise ValueError(f"shape must be nano, {', '.join(SHAPES)}, got {request.shape!r}")
    torch.manual_seed(0)
    config = UniTokMLLMConfig(
        text_config={**LLAMA_2, **SHAPES[request.shape]},
        grid=(request.num_rows or GRID_COLUMNS, GRID_COLUMNS),
    )
    return UniTokMLLM(config).eval()


def build_contexts(model: UniTokMLLM, batch_size: int) -> Tensor:
    """Ids (2B, T) of random prompts and of one unconditional one, all of one length."""
    generator = torch.Generator().manual_seed(0)
    high = model.config.text_config.vocab_size
    ids = torch.randint(5, high, (batch_size + 1, CONTEXT_LENGTH), generator=generator)
    ids[:, -1] = model.config.boi_token_id
    rows = [*range(batch_size), *[batch_size] * batch_size]
    return ids[rows].to(model.device)


def draw_plain(model: UniTokMLLM, ids_NT: Tensor) -> Tensor:
    """Codes (B, L, K), by the plain loop."""
    cache, embeds = DynamicCache(config=model.decoder.config), model.embed(ids_NT)
    num_tokens, drawn = model.config.num_visual_tokens, list[Tensor]()
    projected = model.visual_embedder.build_cache(len(ids_NT), num_tokens)
    for step in range(num_tokens):
        outputs = model.decoder(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        codes_NK = _draw_token_plain(model, outputs.last_hidden_state[:, -1])
        drawn.append(codes_NK)
        if step + 1 < num_tokens:
            embeds = model.visual_embedder(codes_NK.unsqueeze(1), projected)
    return torch.stack(drawn, dim=1)[: len(ids_NT) // 2]


def _draw_token_plain(model: UniTokMLLM, hidden_ND: Tensor) -> Tensor:
    head = model.visual_head
    inputs, codes = [hidden_ND], list[Tensor]()
    for k in range(head.num_codebooks):
        prefix_NkD = torch.stack(inputs, dim=1)
        outputs = head.decoder(inputs_embeds=prefix_NkD, use_cache=False)
        logits_NV = head.to_logits(outputs.last_hidden_state[:, -1])
        codes.append(_choose(logits_NV).repeat(2))
        if k < len(head.sub_code_embeds):
            inputs.append(head.sub_code_embeds[k](codes[k]))
    return torch.stack(codes, dim=1)


def _choose(logits_NV: Tensor) -> Tensor:
    """Guided greedy sub-codes (B,)."""
    conditional_BV, unconditional_BV = logits_NV.float().chunk(2)
    return guide(conditional_BV, unconditional_BV, SAMPLING.guidance_scale).argmax(dim=-1)


class OurDrawing:
    """Draws with one batcher, whose buffers are used again."""

    def __init__(self, model: UniTokMLLM) -> None:
        self.batcher = Batcher(model)

    def __call__(self, model: UniTokMLLM, ids_NT: Tensor) -> Tensor:
        """Codes (B, L, K)."""
        contexts = model.embed(ids_NT)
        num_pictures = len(ids_NT) // 2
        programs = [
            draw_contexts(
                list(contexts[number::num_pictures]), SAMPLING, seed=0, config=model.config
            )
            for number in range(num_pictures)
        ]
        return torch.stack(self.batcher.run_all(programs, max_active=num_pictures))


def choose_forced(model: UniTokMLLM, ids_NT: Tensor, codes_BLK: Tensor) -> Tensor:
    """What the model would choose for each sub-code, were all before it `codes_BLK`."""
    num_pictures, num_tokens, num_codebooks = codes_BLK.shape
    choices = []
    for number in range(num_pictures):
        ids_2T = ids_NT[number::num_pictures]
        visual = ids_2T.new_full((2, num_tokens), model.config.image_token_id)
        codes_2LK = codes_BLK[number].expand(2, -1, -1)
        embeds = model.embed(torch.cat([ids_2T, visual], dim=1), codes_2LK)
        hidden = model.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
        behind = hidden[:, CONTEXT_LENGTH - 1 : -1].flatten(0, 1)
        logits = model.visual_head(behind, codes_2LK.flatten(0, 1))
        choices.append(_choose(logits.flatten(0, 1)).view(num_tokens, num_codebooks))
    return torch.stack(choices)


def count_read_bytes(model: UniTokMLLM) -> int:
    """Bytes of weights that one visual token reads, whatever the batch: the bandwidth floor."""
    decoder = sum(parameter.nbytes for parameter in model.decoder.layers.parameters())
    head = model.visual_head
    layers = sum(parameter.nbytes for parameter in head.decoder.layers.parameters())
    return decoder + head.num_codebooks * (layers + head.to_logits.weight.nbytes)


def agreement(first: GenerationSpeed, second: GenerationSpeed) -> float:
    """Share of sub-codes that two variants drew alike, each following its own."""
    return float(np.mean(first.codes == second.codes))


def _time(
    run: Callable[[], Tensor], repeats: int, *, device: torch.device
) -> tuple[Tensor, float, float]:
    """The result, seconds after a run that warms up, and the peak memory in GiB.

    The fastest run counts: other programs on the machine only ever slow one down.
    """
    run()
    memory = StepMemory(device)
    times = []
    for _ in range(repeats):
        started = _now(device)
        result = run()
        times.append(_now(device) - started)
    return result, min(times), memory.peak_gib()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.thread_time()  # waiting for other programs does not count
    return time.perf_counter()
