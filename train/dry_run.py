"""What a stage would do, without doing it: `python -m train.mllm CONFIG.yaml --dry-run`."""

from collections.abc import Iterator

import yaml
from torch import Tensor, nn

from train.mllm_data import MixtureDataset, Packer
from train.parts import count_parameters
from train.stage_config import StageConfig

GIB = 2**30


def describe_stage(
    config: StageConfig, model: nn.Module, data: MixtureDataset, packer: Packer, *, processes: int
) -> Iterator[str]:
    """Lines: the settings, what learns, memory per device, and the first batch."""
    yield yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    counts = count_parameters(model)
    for part, (learning, total) in counts.items():
        yield f"{part:12} {learning:>14,} of {total:>14,} parameters learn"
    learning, total = (sum(values) for values in zip(*counts.values(), strict=True))
    yield f"{'all':12} {learning:>14,} of {total:>14,} parameters learn"
    yield from memory_lines(config, learning, total, model=model, processes=processes)
    yield from batch_lines(config, data, packer, processes=processes)


def memory_lines(
    config: StageConfig, learning: int, total: int, *, model: nn.Module, processes: int
) -> Iterator[str]:
    """Weights, gradients and optimizer states per device; activations come on top."""
    if config.deepspeed is None:
        # float32 weights; gradient and two AdamW moments of what learns.
        needed = 4 * total + 12 * learning
        yield f"memory per device before activations: {needed / GIB:.2f} GiB (no ZeRO)"
        return
    yield (
        "memory per device before activations, DeepSpeed's estimate for a model that learns "
        f"in full: {zero_memory(config.deepspeed, total, model=model, processes=processes):.2f} GiB"
    )


def zero_memory(deepspeed: str, total: int, *, model: nn.Module, processes: int) -> float:
    """GiB per device by DeepSpeed's own estimators; stage 1 is at most as good as stage 2."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    offload = "offload" in deepspeed
    if "zero3" in deepspeed:
        largest = max(sum(p.numel() for p in m.parameters(recurse=False)) for m in model.modules())
        needed = estimate_zero3_model_states_mem_needs(
            total,
            largest,
            num_gpus_per_node=processes,
            cpu_offload=offload,
            cpu_offload_params=offload,
        )
    else:
        needed = estimate_zero2_model_states_mem_needs(
            total, num_gpus_per_node=processes, cpu_offload=offload
        )
    return float(needed[1]) / GIB  # of a GPU; the first is the host's memory


def batch_lines(
    config: StageConfig, data: MixtureDataset, packer: Packer, *, processes: int
) -> Iterator[str]:
    """How many steps there are, and the first pack's shapes."""
    per_step = config.batch.samples_per_pack * config.batch.accumulation * processes
    yield f"{len(data):,} samples, {per_step} a step: {-(-len(data) // per_step):,} steps"
    first = packer([data[i] for i in range(min(config.batch.samples_per_pack, len(data)))])
    for name, value in first.items():
        shown = tuple(value.shape) if isinstance(value, Tensor) else value
        yield f"first pack: {name:15} {shown}"
