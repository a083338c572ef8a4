"""Speed and memory of one training step: ours against a plain baseline, in the same run.

    python -m train.bench --shape nano --shape 200m

Both see the same mixed batch: drawings, captions, conversations and texts of fixed lengths, with a
vocabulary of 32,000 words. The baseline pads rows to the longest, computes text logits at every
position and image logits at every visual position, all at once. Ours packs rows and computes the
logits that are learned, in chunks. Counted are useful tokens: no padding. Memory is the peak of a
step above parameters, gradients and optimizer states; each variant runs in a process of its own.

A variant takes one step that is not timed and then up to `--steps`, of which none begins after
`--seconds`.
"""

import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.table import Table
from torch import Tensor, nn
from torch.optim import AdamW

from eval.step_memory import StepMemory
from mllm.config import UniTokMLLMConfig
from mllm.console import announce, out, say, user_errors
from mllm.loss import MAX_LOGIT_WEIGHT
from mllm.model import UniTokMLLM
from mllm.packed_attention import PACKED_SDPA
from mllm.processor import IGNORED_LABEL, Encoded
from train.mllm_data import Packer, Sample

VOCAB_SIZE = 32_000
NUM_VISUAL_TOKENS = 256
CODEBOOK_SIZE = 4096
NUM_CODEBOOKS = 8
# Rows of the batch: kind, ids before the picture, ids after it. None: no picture.
ROWS = (
    ("drawing", 40, 2), ("drawing", 24, 2), ("caption", 2, 60), ("caption", 2, 30),
    ("chat", 20, 400), ("chat", 20, 120), ("text", 700, None), ("text", 250, None),
)  # fmt: skip
SHAPES = {  # hidden size, intermediate size, layers, heads, head layers
    "nano": (256, 640, 6, 4, 2),
    "200m": (768, 2048, 18, 12, 3),
    "1b": (2048, 5504, 20, 16, 3),
    "7b": (4096, 11008, 32, 32, 3),
}
VARIANTS = ("baseline", "ours")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Measured:
    """Of one variant at one shape."""

    tokens_per_second: float
    memory_gib: float
    num_parameters: int
    num_steps: int  # that were timed
    loss: float


def build_config(shape: str) -> UniTokMLLMConfig:
    hidden, intermediate, layers, heads, head_layers = SHAPES[shape]
    return UniTokMLLMConfig(
        text_config={
            "vocab_size": VOCAB_SIZE,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 2048,
            "pad_token_id": 0,
        },
        num_codebooks=NUM_CODEBOOKS,
        codebook_size=CODEBOOK_SIZE,
        projection_dim=min(1024, hidden),
        head_layers=head_layers,
    )


def build_rows(config: UniTokMLLMConfig) -> list[Encoded]:
    """The fixed batch; a drawing learns its picture, the others the ids behind it."""
    rng = random.Random(0)
    generator = torch.Generator().manual_seed(0)
    visual = [int(config.image_token_id)] * NUM_VISUAL_TOKENS
    rows = []
    for kind, before, after in ROWS:
        head = [rng.randrange(5, VOCAB_SIZE) for _ in range(before)]
        if after is None:
            rows.append(Encoded(torch.tensor(head), torch.tensor(head), ()))
            continue
        tail = [rng.randrange(5, VOCAB_SIZE) for _ in range(after)]
        learned = visual if kind == "drawing" else [IGNORED_LABEL] * len(visual)
        labels = [IGNORED_LABEL] * before + learned + tail
        codes = torch.randint(
            0, CODEBOOK_SIZE, (NUM_VISUAL_TOKENS, NUM_CODEBOOKS), generator=generator
        )
        rows.append(Encoded(torch.tensor(head + visual + tail), torch.tensor(labels), (codes,)))
    return rows


def packed_loss(model: UniTokMLLM, rows: Sequence[Encoded]) -> Tensor:
    """Ours."""
    samples = [Sample(source=0, row_id="", encoded=row) for row in rows]
    pack = Packer.for_config(model.config)(samples)
    output = model(
        input_ids=pack["input_ids"].to(model.device),
        labels=pack["labels"].to(model.device),
        codes=pack["codes"].to(model.device),
        sample_lengths=pack["sample_lengths"],
    )
    assert output.loss is not None
    return output.loss


def padded_loss(model: UniTokMLLM, rows: Sequence[Encoded]) -> Tensor:
    """The baseline: the same loss with padding and all logits."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([row.input_ids for row in rows], batch_first=True).to(model.device)
    labels = pad([row.labels for row in rows], batch_first=True, padding_value=IGNORED_LABEL)
    labels = labels.to(model.device)
    mask = pad([torch.ones_like(row.input_ids) for row in rows], batch_first=True)
    codes = torch.stack([codes for row in rows for codes in row.pictures]).to(model.device)
    hidden = model.decoder(
        inputs_embeds=model.embed(ids, codes), attention_mask=mask.to(model.device), use_cache=False
    ).last_hidden_state[:, :-1]
    is_image = labels[:, 1:] == model.config.image_token_id
    text_labels = labels[:, 1:].masked_fill(is_image, IGNORED_LABEL)
    logits = model.lm_head(hidden).float()
    text = F.cross_entropy(logits.flatten(0, 1), text_labels.flatten(), reduction="sum")
    is_visual = ids[:, 1:] == model.config.image_token_id
    all_codes = codes.flatten(0, 1)
    image_logits = model.visual_head(hidden[is_visual], all_codes).float()
    losses = F.cross_entropy(image_logits.mT, all_codes, reduction="none")
    losses = losses + MAX_LOGIT_WEIGHT * image_logits.amax(dim=-1).square()
    image = losses[is_image[is_visual]].sum()
    count = (text_labels != IGNORED_LABEL).sum() + is_image.sum() * NUM_CODEBOOKS
    return (text + image) / count


LOSSES: dict[str, Callable[[UniTokMLLM, Sequence[Encoded]], Tensor]] = {
    "baseline": padded_loss,
    "ours": packed_loss,
}


def build_trained(shape: str, variant: str, *, device: str) -> tuple[UniTokMLLM, AdamW]:
    """A model with gradients and optimizer states, which are not counted, in memory."""
    torch.manual_seed(0)
    model = UniTokMLLM(build_config(shape)).train()
    nn.Module.to(model, device)  # transformers' own `to` is annotated for another argument
    model.set_attn_implementation(PACKED_SDPA if variant == "ours" else "sdpa")
    optimizer = AdamW(model.parameters(), lr=1e-5, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return model, optimizer


def measure(
    shape: str, variant: str, *, steps: int, seconds: float, device: str, threads: int
) -> Measured:
    """Steps of AdamW in bfloat16 after one that is not timed: 1 to `steps`, as time allows."""
    torch.set_num_threads(threads)
    model, optimizer = build_trained(shape, variant, device=device)
    rows = build_rows(model.config)
    memory = StepMemory(torch.device(device))
    times: list[float] = []
    while len(times) < 2 or (len(times) <= steps and sum(times[1:]) < seconds):
        started = time.monotonic()
        with torch.autocast(device, torch.bfloat16):
            value = LOSSES[variant](model, rows)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        loss = value.item()
        times.append(time.monotonic() - started)
    num_steps = len(times) - 1
    return Measured(
        tokens_per_second=sum(map(len, rows)) * num_steps / sum(times[1:]),
        memory_gib=memory.peak_gib(),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_steps=num_steps,
        loss=loss,
    )


def measure_apart(**arguments: Any) -> Measured:
    """In a process of its own, so that no variant's memory counts for another."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, kwds=arguments)


def result_row(shape: str, results: dict[str, Measured]) -> list[str]:
    ours, baseline = results["ours"], results["baseline"]
    return [
        shape,
        f"{ours.num_parameters / 1e6:.0f} M",
        *(f"{results[name].tokens_per_second:.0f}" for name in VARIANTS),
        f"{ours.tokens_per_second / baseline.tokens_per_second:.2f}",
        *(f"{results[name].memory_gib:.2f}" for name in VARIANTS),
        f"{ours.memory_gib / baseline.memory_gib:.2f}",
    ]


def describe_batch() -> str:
    """The fixed batch in words: ids before, in and after each picture."""
    shown, lengths = [], []
    for kind, before, after in ROWS:
        parts = [before] if after is None else [before, NUM_VISUAL_TOKENS, after]
        shown.append(f"{kind} {'+'.join(map(str, parts))}")
        lengths.append(sum(parts))
    return (
        f"batch: {', '.join(shown)} ids: {sum(lengths)} useful tokens, "
        f"{max(lengths) * len(lengths)} when padded; {NUM_CODEBOOKS} sub-codes of {CODEBOOK_SIZE}"
    )


@app.command(
    help="Measure a training step against a plain baseline.\n\n"
    "Example: python -m train.bench --shape nano --shape 200m"
)
def main(
    shape: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SHAPES)}")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps at most")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0, help="No timed step of a variant begins later than this")
    ] = 20,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 2,
) -> None:
    headings = ["shape", "parameters", "baseline tokens/s", "ours", "ratio"]
    headings += ["baseline GiB", "ours GiB", "ratio"]
    table = Table(title=f"one training step, {device}, bfloat16, vocabulary {VOCAB_SIZE}")
    for heading in headings:
        table.add_column(heading)
    with user_errors():
        for name in shape or ["nano", "200m"]:
            if name not in SHAPES:
                raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {name}")
            results = {}
            for variant in VARIANTS:
                announce(f"measuring {name}, {variant}")
                results[variant] = measure_apart(
                    shape=name,
                    variant=variant,
                    steps=steps,
                    seconds=seconds,
                    device=device,
                    threads=threads,
                )
            table.add_row(*result_row(name, results))
            for variant, each in results.items():
                announce(f"{variant}: {each.num_steps} timed steps, last loss {each.loss:.4f}")
    out.print(table)
    say(describe_batch())


if __name__ == "__main__":
    app()
