"""What a stage would do, without doing it: `python -m train.mllm CONFIG.yaml --dry-run`."""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml
from torch import Tensor, nn

from train.deepspeed_settings import read_zero
from train.mllm_data import MixtureDataset, Packer
from train.parts import count_parameters
from train.stage_config import LoraSettings, StageConfig

GIB = 2**30
LEARNING_BYTES = 16  # float32: the weight, its gradient and two moments of AdamW
ADAPTED = ".base_layer."  # in the names of the layers that peft has put adapters on


@dataclass(frozen=True)
class Machines:
    """What a run would be spread over."""

    processes: int  # on each machine
    nodes: int = 1

    @property
    def total(self) -> int:
        return self.processes * self.nodes


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
    yield memory_line(config, total, model=model, machines=machines)
    yield from batch_lines(config, data, packer, machines=machines)


def memory_line(config: StageConfig, total: int, *, model: nn.Module, machines: Machines) -> str:
    """Weights, gradients and optimizer states per device; activations come on top."""
    if config.deepspeed is None:
        needed = plain_memory(config, model) / GIB
        return f"memory per device before activations: {needed:.2f} GiB (no ZeRO)"
    needed = zero_memory(config.deepspeed, total, model=model, machines=machines)
    return (
        "memory per device before activations, DeepSpeed's estimate for a model that learns "
        f"in full: {needed:.2f} GiB"
    )


def plain_memory(config: StageConfig, model: nn.Module) -> float:
    """Bytes of one device that holds everything."""
    lora = config.lora or LoraSettings()
    frozen_bytes = 2 if lora.frozen_dtype == "bfloat16" else 4
    needed = 0.0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            each: float = LEARNING_BYTES
        elif lora.quantization is not None and ADAPTED in name:
            each = 0.5
        else:
            each = frozen_bytes
        needed += each * parameter.numel()
    return needed


def zero_memory(deepspeed: str, total: int, *, model: nn.Module, machines: Machines) -> float:
    """GiB per device by DeepSpeed's own estimators; for stage 1 that of stage 2, the least it can
    need."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    zero = read_zero(deepspeed)
    if zero.stage == 3:
        largest = max(sum(p.numel() for p in m.parameters(recurse=False)) for m in model.modules())
        needed = estimate_zero3_model_states_mem_needs(
            total,
            largest,
            num_gpus_per_node=machines.processes,
            num_nodes=machines.nodes,
            cpu_offload=zero.offload_optimizer,
            cpu_offload_params=zero.offload_params,
        )
    else:
        needed = estimate_zero2_model_states_mem_needs(
            total,
            num_gpus_per_node=machines.processes,
            num_nodes=machines.nodes,
            cpu_offload=zero.offload_optimizer,
        )
    return float(needed[1]) / GIB  # of a GPU; the first is the host's memory


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
