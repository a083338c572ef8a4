"""What a tokenizer training would do, without doing it."""

from collections.abc import Iterator

import yaml
from torch import nn

from train.generator_losses import freeze_idle
from train.memory_estimate import GIB, LEARNING_BYTES
from train.tokenizer_config import TokenizerConfig
from train.tokenizer_data import TokenizerData
from unitok.model import UniTok

MOMENT_BYTES = 8  # of the learning ones: AdamW's two moments, which ZeRO-1 shares out
WEIGHT_BYTES = 4  # float32


def describe_run(
    config: TokenizerConfig, model: UniTok, *, judges: dict[str, nn.Module], processes: int
) -> Iterator[str]:
    """Lines: the settings, what learns, memory per device, and the first batch.

    `judges` are the frozen or adversarial networks of the losses.
    """
    yield yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    freeze_idle(model, config.weights)
    parts = {**dict(model.named_children()), **judges}
    counts = {name: count(part) for name, part in parts.items()}
    counts["logit_scale"] = (int(model.logit_scale.requires_grad), 1)
    for name, (learning, total) in counts.items():
        yield f"{name:16} {learning:>14,} of {total:>14,} parameters learn"
    learning, total = (sum(values) for values in zip(*counts.values(), strict=True))
    yield f"{'all':16} {learning:>14,} of {total:>14,} parameters learn"
    needed = fixed_memory(config, model, learning=learning, total=total, processes=processes)
    yield f"memory per device before activations: {needed / GIB:.2f} GiB"
    yield from batch_lines(config, processes=processes)


def count(part: nn.Module) -> tuple[int, int]:
    """Parameters that learn, and all."""
    sizes = [(p.numel() * p.requires_grad, p.numel()) for p in part.parameters()]
    return sum(size for size, _ in sizes), sum(size for _, size in sizes)


def fixed_memory(
    config: TokenizerConfig, model: UniTok, *, learning: int, total: int, processes: int
) -> float:
    """Bytes of weights, gradients, moments and averaged weights on one device."""
    needed = float(LEARNING_BYTES * learning + WEIGHT_BYTES * (total - learning))
    if config.zero1:  # of the tokenizer; the discriminator's are few
        needed -= MOMENT_BYTES * count(model)[0] * (1 - 1 / processes)
    if config.ema_decay is not None:
        needed += WEIGHT_BYTES * count(model)[1]
    return needed


def batch_lines(config: TokenizerConfig, *, processes: int) -> Iterator[str]:
    """How a step is shared, and the first batch's shapes."""
    batch = config.batch
    batch.check_parts(processes)
    yield (
        f"{config.steps:,} steps of {batch.size:,} pictures: {processes} processes x "
        f"{batch.accumulation} parts x {batch.size / processes / batch.accumulation:g}, of which "
        f"1 in {batch.decode_every} is decoded"
    )
    data = TokenizerData(
        config.data,
        model_config=config.model,
        batch_size=batch.size,
        world_size=processes,
        num_workers=config.num_workers,
        seed=config.seed,
    )
    first = data.first_batch()
    for name in ("pixels", "text_ids", "seeds"):
        yield f"first batch: {name:10} {tuple(getattr(first, name).shape)}"
