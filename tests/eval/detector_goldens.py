"""Recorded inputs and outputs of GenEval's official detector with weights made from their names."""

import json
from functools import cache

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from eval.mmdet_layout import relative_position_index
from tests.reference_weights import GOLDENS, fill, load_layout

FOLDER = GOLDENS / "detector"


@cache
def load_layout_and_rule() -> tuple[dict, dict]:
    """The official layout, and how its weights are made."""
    return load_layout("detector/layout.json"), json.loads((FOLDER / "weights.json").read_text())


@cache
def load_items() -> dict[str, dict]:
    """Sizes and counts of the items `img0`, `img1` and `full`."""
    return json.loads((FOLDER / "dev.json").read_text())


def load_tensors(item: str) -> dict[str, Tensor]:
    """The recorded outputs of one item, by field."""
    tensors = load_file(FOLDER / "dev.safetensors")
    prefix = f"{item}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def open_image(item: str) -> Image.Image:
    """The source picture of one item."""
    return Image.open(FOLDER / load_items()[item]["png"])


def make_weights() -> dict[str, Tensor]:
    """The weights that the recorded numbers were computed with, in official names."""
    layout, rule = load_layout_and_rule()
    gains = rule["rule"]["gain"]
    index = torch.from_numpy(relative_position_index())
    return {
        key: value * find_gain(key, gains) if value.is_floating_point() else index
        for key, value in fill(layout).items()
    }


def find_gain(key: str, gains: list[dict]) -> float:
    """The factor of a tensor: of the first entry whose prefix and suffix fit, or the last one."""
    for entry in gains:
        suffixes = tuple(entry.get("suffix", ()))
        if suffixes and key.startswith(entry.get("prefix", "")) and key.endswith(suffixes):
            return entry["gain"]
    return gains[-1]["otherwise"]
