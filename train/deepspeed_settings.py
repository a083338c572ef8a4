"""DeepSpeed's settings: JSON files of ours by name, or a user's own by path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.optimizers import OptimizerName
from unitok.files import read_json

DEEPSPEED_CONFIGS = Path(__file__).parent / "configs" / "deepspeed"


@dataclass(frozen=True)
class ZeroSettings:
    """What of a DeepSpeed JSON decides where weights, gradients and optimizer states are."""

    stage: int  # 0 to 3
    offload_optimizer: bool
    offload_params: bool


def find_deepspeed(name: str) -> Path:
    """A DeepSpeed JSON of ours by its name, or a path."""
    known = {path.stem: path for path in sorted(DEEPSPEED_CONFIGS.glob("*.json"))}
    path = known.get(name, Path(name))
    if not path.is_file():
        raise FileNotFoundError(
            f"no DeepSpeed settings {name}; expected {', '.join(known)} or a file"
        )
    return path


def settings_for(name: str, optimizer: OptimizerName) -> dict[str, Any]:
    """All settings called `name`, as this optimizer needs them."""
    settings: dict[str, Any] = read_json(find_deepspeed(name))
    zero = settings.get("zero_optimization", {})
    if optimizer == "muon" and zero.get("stage") == 3:
        # Muon is computed from whole gradients; with parts DeepSpeed refuses to start.
        zero.setdefault("reduce_scatter", False)
    return settings


def read_zero(name: str) -> ZeroSettings:
    """The ZeRO part of the settings called `name`."""
    zero = read_json(find_deepspeed(name)).get("zero_optimization", {})
    return ZeroSettings(
        stage=int(zero.get("stage", 0)),
        offload_optimizer=_offloads(zero.get("offload_optimizer")),
        offload_params=_offloads(zero.get("offload_param")),
    )


def _offloads(section: dict[str, str] | None) -> bool:
    return (section or {}).get("device", "none") != "none"
