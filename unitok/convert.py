"""Released UniTok checkpoints (.pth) -> config.json + model.safetensors.

The only file of this package that knows the official names and settings.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from unitok.checkpoint import check_keys
from unitok.config import PRESETS, UniTokConfig
from unitok.model import UniTok

OFFICIAL_PRESETS = {"vitamin_large": "large", "vitamin_base": "base"}
OFFICIAL_PROJECTIONS = {"attn": "attention", "linear": "linear"}
# Official settings that fix a size, beside the model's name.
SIZES = (
    "img_size",
    "num_codebooks",
    "vocab_size",
    "vocab_width",
    "embed_dim",
    "text_width",
    "text_heads",
    "text_layers",
    "text_vocab_size",
    "text_context_length",
)
CODEBOOK_KEY = re.compile(r"quantizer\.codebooks\.(\d+)\.(codebook\.weight|vocab_usage)")
OUR_CODEBOOKS = {
    "codebook.weight": "quantizer.codebooks_KVD",
    "vocab_usage": "quantizer.vocab_usage_KV",
}
OFFICIAL_BACKBONE = "encoder.patch_embed.backbone."
OUR_BACKBONE = "encoder.backbone."
# A buffer of zeros that stands for the key bias, which we do not have.
ZERO_BIAS = "attn.zero_k_bias"


def convert_config(args: Mapping[str, Any]) -> UniTokConfig:
    """The official settings (`ckpt["args"]`) as a `UniTokConfig`."""
    if missing := [name for name in ("model", *SIZES) if name not in args]:
        raise ValueError(f"the checkpoint's args lack {', '.join(missing)}")
    if args.get("num_query", 0):
        raise ValueError(f"cannot convert num_query={args['num_query']}; expected 0, as released")
    model = str(args["model"])
    name = next((name for name in OFFICIAL_PRESETS if model.startswith(name)), model)
    sizes = {name: _read_size(args, name) for name in SIZES}
    num_codebooks = sizes["num_codebooks"]
    for total in ("vocab_size", "vocab_width"):
        if sizes[total] % num_codebooks:
            raise ValueError(
                f"cannot convert {total}={sizes[total]}: expected a multiple of "
                f"num_codebooks={num_codebooks}"
            )
    values = PRESETS[_choose(OFFICIAL_PRESETS, name, "model")].to_dict() | {
        "image_size": sizes["img_size"],
        "num_codebooks": num_codebooks,
        "codebook_size": sizes["vocab_size"] // num_codebooks,
        "codebook_dim": sizes["vocab_width"] // num_codebooks,
        "drop_path": float(args.get("drop_path", 0.0)),
        "projection": _choose(OFFICIAL_PROJECTIONS, args.get("quant_proj", "attn"), "quant_proj"),
        "feature_dim": sizes["embed_dim"],
        "text_width": sizes["text_width"],
        "text_heads": sizes["text_heads"],
        "text_layers": sizes["text_layers"],
        "text_vocab_size": sizes["text_vocab_size"],
        "text_context_length": sizes["text_context_length"],
        "commitment_weight": float(args.get("vq_beta", UniTokConfig.commitment_weight)),
    }
    return UniTokConfig.from_dict(values)


def official_layout(config: UniTokConfig) -> dict[str, Tensor]:
    """Every official key that a model of this config must have, with a meta tensor as its shape."""
    with torch.device("meta"):
        ours = UniTok(config).state_dict()
    official_codebooks = {ours: theirs for theirs, ours in OUR_CODEBOOKS.items()}
    layout: dict[str, Tensor] = {}
    for key, value in ours.items():
        if key in official_codebooks:
            for index, book in enumerate(value):
                layout[f"quantizer.codebooks.{index}.{official_codebooks[key]}"] = book
        else:
            layout[key.replace(OUR_BACKBONE, OFFICIAL_BACKBONE)] = value
        if key.endswith("attn.q_bias"):
            layout[key.replace("attn.q_bias", ZERO_BIAS)] = value
    return layout


def convert_state_dict(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names -> ours. Expects every key of `official_layout`, and no other."""
    ours: dict[str, Tensor] = {}
    codebooks: dict[str, dict[int, Tensor]] = {}
    for key, value in official.items():
        if match := CODEBOOK_KEY.fullmatch(key):
            codebooks.setdefault(OUR_CODEBOOKS[match[2]], {})[int(match[1])] = value
        elif not key.endswith(ZERO_BIAS):
            ours[key.replace(OFFICIAL_BACKBONE, OUR_BACKBONE)] = value
    for key, books in codebooks.items():
        ours[key] = torch.stack([books[index] for index in sorted(books)])
    return ours


def convert_checkpoint(path: str | Path) -> UniTok:
    """Read a released .pth and return the model in float32 and eval mode.

    Raises ValueError for any other file, and names the tensors that are missing, unknown or
    misshapen.
    """
    path = Path(path)
    args, official = _read_checkpoint(path)
    config = convert_config(args)
    check_keys(official, official_layout(config), source=path)
    return UniTok.from_weights(config, convert_state_dict(official), source=path)


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and weights of a released file, the weights mapped from disk."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; expected a released UniTok .pth file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except PermissionError:
        raise
    except (RuntimeError, OSError, UnpicklingError, EOFError) as error:
        # torch explains itself in paragraphs, and a cut file is an "Invalid argument".
        is_unsafe = isinstance(error, UnpicklingError)
        reason = "holds more than plain values" if is_unsafe else "is no whole torch archive"
        raise ValueError(
            f"{path} is no checkpoint that can be read safely: it {reason}; download the released "
            ".pth file again"
        ) from error
    args = _entry(checkpoint, "args")
    official = _entry(_entry(checkpoint, "trainer"), "unitok")
    is_released = args and official and all(map(torch.is_tensor, official.values()))
    if not is_released:
        raise ValueError(
            f"{path} is no released UniTok checkpoint: expected the entries args, a dict of "
            "settings, and trainer.unitok, a dict of tensors"
        )
    return args, official


def _entry(content: object, name: str) -> dict[str, Any]:
    """The dict that `content` holds under `name`, an empty one if there is none."""
    value = content.get(name) if isinstance(content, dict) else None
    return value if isinstance(value, dict) else {}


def _read_size(args: Mapping[str, Any], name: str) -> int:
    value = args[name]
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"cannot convert {name}={value!r}; expected a positive integer")
    return value


def _choose(names: Mapping[str, str], official: object, setting: str) -> str:
    """Our name of an official setting's value."""
    if official not in names:
        raise ValueError(
            f"cannot convert {setting}={official!r}; expected one of {', '.join(names)}"
        )
    return names[str(official)]
