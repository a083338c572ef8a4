"""What a stage would do, without doing it: `python -m train.mllm CONFIG.yaml --dry-run`."""

from collections.abc import Iterator

import yaml
from torch import Tensor, nn

from train.memory_estimate import Machines, memory_line
from train.mllm_data import MixtureDataset, Packer
from train.parts import count_parameters
from train.stage_config import StageConfig


def describe_stage(
    config: StageConfig,
    model: nn.Module,
    data: MixtureDataset,
    packer: Packer,
    *,
    machines: Machines,
) -> Iterator[str]:
    """Lines: the settings, what learns, memory per device, and the first batch."""
    yield yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    counts = count_parameters(model)
    for part, (learning, total) in counts.items():
        yield f"{part:12} {learning:>14,} of {total:>14,} parameters learn"
    learning, total = (sum(values) for values in zip(*counts.values(), strict=True))
    yield f"{'all':12} {learning:>14,} of {total:>14,} parameters learn"
    yield memory_line(config, model, machines=machines)
    yield from batch_lines(config, data, packer, machines=machines)


def batch_lines(
    config: StageConfig, data: MixtureDataset, packer: Packer, *, machines: Machines
) -> Iterator[str]:
    """How many steps there are, and the first pack's shapes."""
    per_step = config.batch.samples_per_pack * config.batch.accumulation * machines.total
    num_samples = len(data.plan)
    yield f"{num_samples:,} samples, {per_step} a step: {-(-num_samples // per_step):,} steps"
    first = packer([data[i] for i in range(min(config.batch.samples_per_pack, len(data.plan)))])
    for name, value in first.items():
        shown = tuple(value.shape) if isinstance(value, Tensor) else value
        yield f"first pack: {name:15} {shown}"
