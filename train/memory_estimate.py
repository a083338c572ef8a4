"""Memory of a stage before activations: weights, gradients and optimizer states.

With ZeRO by DeepSpeed's own estimators, asked about the parameters that learn; frozen weights are
added. All figures are bytes.
"""

from dataclasses import dataclass

from torch import nn

from train.deepspeed_settings import ZeroSettings, read_zero
from train.stage_config import LoraSettings, StageConfig

GIB = 2**30
LEARNING_BYTES = 16  # float32: the weight, its gradient and two moments of AdamW
FOUR_BITS = 0.5
ADAPTED = ".base_layer."  # in the names of the layers that peft has put adapters on


@dataclass(frozen=True)
class Machines:
    """What a run would be spread over."""

    processes: int  # on each machine
    nodes: int = 1

    @property
    def total(self) -> int:
        return self.processes * self.nodes


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes of one device, and of the main memory of one machine."""

    device: float
    machine: float = 0


def memory_line(config: StageConfig, model: nn.Module, *, machines: Machines) -> str:
    """What a device needs, and a machine's main memory where something is offloaded to it."""
    if config.deepspeed is None:
        needed = plain_memory(config, model)
        return f"memory per device before activations: {needed.device / GIB:.2f} GiB (no ZeRO)"
    zero = read_zero(config.deepspeed)
    needed = zero_memory(config, model, zero=zero, machines=machines)
    line = (
        "memory per device before activations, by DeepSpeed's estimators: "
        f"{needed.device / GIB:.2f} GiB"
    )
    if needed.machine:
        line += f", and {needed.machine / GIB:.2f} GiB of each machine's main memory"
    return line + "".join(f"; {note}" for note in reservations(config, zero))


def reservations(config: StageConfig, zero: ZeroSettings) -> list[str]:
    """Why the estimate is less than what is needed."""
    notes = []
    if zero.stage < 2:
        notes.append(f"ZeRO-2's, a lower bound for ZeRO-{zero.stage}")
    if config.precision == "fp32":
        notes.append("bf16's, a lower bound for fp32")
    return notes


def plain_memory(config: StageConfig, model: nn.Module) -> MemoryNeeds:
    """Of a device that holds everything."""
    lora = config.lora or LoraSettings()
    each = 2 if lora.frozen_dtype == "bfloat16" else 4
    return MemoryNeeds(
        LEARNING_BYTES * count_learning(model) + frozen_bytes(config, model, bytes_each=each)
    )


def zero_memory(
    config: StageConfig, model: nn.Module, *, zero: ZeroSettings, machines: Machines
) -> MemoryNeeds:
    """Of what ZeRO spreads over all devices; ZeRO-2 keeps the weights whole on each of them."""
    frozen = frozen_bytes(config, model, bytes_each=2 if config.precision == "bf16" else 4)
    if zero.stage < 3:
        learning = zero_2_memory(count_learning(model), zero=zero, machines=machines)
        return MemoryNeeds(learning.device + frozen, learning.machine)
    learning = zero_3_memory(model, zero=zero, machines=machines)
    if zero.offload_params:
        return MemoryNeeds(learning.device, learning.machine + frozen / machines.nodes)
    return MemoryNeeds(learning.device + frozen / machines.total, learning.machine)


def zero_2_memory(num_learning: int, *, zero: ZeroSettings, machines: Machines) -> MemoryNeeds:
    """By DeepSpeed, of parameters that learn; stage 1 needs more, and has no estimator."""
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    machine, device = estimate_zero2_model_states_mem_needs(
        num_learning,
        num_gpus_per_node=machines.processes,
        num_nodes=machines.nodes,
        cpu_offload=zero.offload_optimizer,
    )
    return MemoryNeeds(device, machine if zero.offload_optimizer else 0)


def zero_3_memory(model: nn.Module, *, zero: ZeroSettings, machines: Machines) -> MemoryNeeds:
    """By DeepSpeed, of parameters that learn and of the largest layer, which is gathered."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    largest = max(sum(p.numel() for p in m.parameters(recurse=False)) for m in model.modules())
    machine, device, _ = estimate_zero3_model_states_mem_needs(
        count_learning(model),
        largest,
        num_gpus_per_node=machines.processes,
        num_nodes=machines.nodes,
        cpu_offload=zero.offload_optimizer,
        cpu_offload_params=zero.offload_params,
    )
    return MemoryNeeds(device, machine if zero.offload_optimizer else 0)


def count_learning(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters() if value.requires_grad)


def frozen_bytes(config: StageConfig, model: nn.Module, *, bytes_each: int) -> float:
    """Of the weights that do not learn, `bytes_each` but for layers of 4 bits."""
    is_quantized = config.lora is not None and config.lora.quantization is not None
    return sum(
        (FOUR_BITS if is_quantized and ADAPTED in name else bytes_each) * value.numel()
        for name, value in model.named_parameters()
        if not value.requires_grad
    )
