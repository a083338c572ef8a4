"""Whether a Mask2Former computes on this machine what it should, before it judges anything.

Two failures score every picture wrong without a word: weights that were not loaded, and a GPU whose
arithmetic makes confidences collapse. So a detector looks at a known picture in float32 without
TF32 each time that it is loaded, and stops unless

- its confidences are those of a trained network, not of one that was only initialised, and
- its logits are those that its conversion recorded on a CPU or, where the folder has no record
  (the hub's weights), those of the same weights on the CPU of this machine.

It is not checked whether the weights find the right things: the known picture is drawn, and what
the official ones see in it is not known. Names and shapes of all weights are checked on loading.

Shapes: Q queries, C classes, h x w mask logits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from eval.mmdet_pipeline import preprocess
from unitok.files import atomic_write

RECORD_FILE = "self_test.safetensors"  # beside the weights
# Objects, a background and noise. Records are of this very file: another picture needs another
# RECORD_FILE.
_PICTURE = Path(__file__).with_suffix(".png")
_SCALE = (213, 128)  # small, so that a CPU takes under a second

# Class probability of a query's favourite, "no object" included, in the median over queries. With
# weights of trained spread it is 0.7 to 0.8 here, with freshly initialised ones 0.025.
MIN_CONFIDENCE = 0.1
# Largest difference of a query's logits, in the median over queries: rounding moves a few queries a
# thousand times more than the others, where it flips a bit of an attention mask. Measured on such
# weights: 2e-5 float32 against float64, 1.1e-2 factors rounded as in TF32, 1.3e-1 bfloat16.
MAX_DIFFERENCE = 1e-3


@dataclass(frozen=True, eq=False)
class KnownOutput:
    """What a network says about the known picture, on the CPU."""

    class_logits: Tensor  # (Q, C + 1) float32
    mask_logits: Tensor  # (Q, h, w) float32


def known_pixels() -> np.ndarray:
    """The known picture as the network takes it, (1, 3, H, W) float32."""
    with Image.open(_PICTURE) as picture:
        return preprocess(picture, _SCALE).pixels


def write_record(output: KnownOutput, folder: Path) -> None:
    """Store what a converted detector says beside its weights."""
    with atomic_write(folder / RECORD_FILE) as temporary:
        save_file(vars(output), temporary)


def read_record(folder: Path) -> KnownOutput | None:
    """What the detector in `folder` said when it was converted; None where nothing was recorded."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return KnownOutput(**load_file(path))
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{path} is no record of a conversion; convert the detector again") from (
            error
        )


def check_output(
    found: KnownOutput, expected: KnownOutput, *, detector: str, device: torch.device
) -> None:
    """Raise RuntimeError unless the detector may judge on `device`."""
    who = f"the detector {detector} fails its self-test on {device}"
    confidence = found.class_logits.softmax(dim=-1).amax(dim=-1).median().item()
    if not confidence >= MIN_CONFIDENCE:  # NaN is not
        raise RuntimeError(
            f"{who}: its confidence in what it sees is {confidence:.3f}, expected at least "
            f"{MIN_CONFIDENCE} of a trained one; convert the official checkpoint again"
        )
    for kind, logits in vars(found).items():
        difference = _difference(logits, vars(expected)[kind])
        if not difference <= MAX_DIFFERENCE:
            raise RuntimeError(
                f"{who}: its {kind.replace('_', ' ')} differ by {difference:.2g} from those that "
                f"its weights should give, expected at most {MAX_DIFFERENCE}; use --device cpu, or "
                "if that fails too, convert the official checkpoint again"
            )


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest of each query, in the median over queries; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    return (found - expected).abs().flatten(1).amax(dim=1).median().item()
