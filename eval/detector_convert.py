"""GenEval's official detector (.pth of mmdet 2.x) -> config.json + model.safetensors.

mmdet loads a wrong file without a word and then finds nothing. Here every tensor is checked by
name, shape and type before anything is written.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from eval import mmdet_layout as sizes
from eval.detector import coco_names
from eval.detector_self_test import RECORD_FILE, write_record
from eval.file_hashes import sha256_of
from eval.mask2former import SOURCE_KEY, Mask2FormerDetector, check_labels
from eval.mmdet_layout import Move, merging_order, official_moves, relative_position_index
from unitok.checkpoint import check_layout
from unitok.files import atomic_write
from unitok.hub import CONFIG_FILE

# The release script puts the start of a file's SHA-256 behind its name.
_HASHED_NAME = re.compile(r".*-([0-9a-f]{8})\.pth")


def convert_detector(path: str | Path, folder: str | Path, *, force: bool = False) -> None:
    """Convert the checkpoint `path` into `folder`, for `Mask2FormerDetector.from_pretrained`.

    The folder records the file's name and SHA-256, and what the detector says about the known
    picture of its self-test. Raises ValueError for any other file, naming the tensors that are
    missing, unknown, misshapen or of another type, and FileExistsError unless `force`.
    """
    path, folder = Path(path), Path(folder)
    config_file, weights_file = folder / CONFIG_FILE, folder / "model.safetensors"
    if not force and (config_file.exists() or weights_file.exists()):
        raise FileExistsError(f"{folder} holds a model already; pass --force to overwrite it")
    digest = _check_hash(path)
    official = _read_weights(path)
    weights = convert_state_dict(official, source=path)
    config = build_config().to_dict() | {SOURCE_KEY: {"file": path.name, "sha256": digest}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_FILE).unlink(missing_ok=True)
    config_file.unlink(missing_ok=True)  # written after them, so that half a model never loads
    with atomic_write(weights_file) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    with atomic_write(config_file) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_record(Mask2FormerDetector.from_pretrained(folder).see_known_picture(), folder)


def build_config() -> Mask2FormerConfig:
    """The official architecture, every size stated."""
    backbone = {
        "model_type": "swin",
        "embed_dim": sizes.SWIN_WIDTH,
        "depths": list(sizes.SWIN_DEPTHS),
        "num_heads": list(sizes.SWIN_HEADS),
        "window_size": sizes.WINDOW,
        "mlp_ratio": 4.0,
        "patch_size": 4,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_absolute_embeddings": False,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    return Mask2FormerConfig(
        backbone_config=backbone,
        id2label=dict(enumerate(coco_names())),
        label2id={name: index for index, name in enumerate(coco_names())},
        num_queries=sizes.NUM_QUERIES,
        decoder_layers=sizes.DECODER_LAYERS + 1,  # transformers builds one fewer
        encoder_layers=sizes.ENCODER_LAYERS,
        feature_size=sizes.HIDDEN,
        mask_feature_size=sizes.HIDDEN,
        hidden_dim=sizes.HIDDEN,
        encoder_feedforward_dim=sizes.ENCODER_MLP,
        dim_feedforward=sizes.DECODER_MLP,
        activation_function="relu",
        num_attention_heads=sizes.NUM_HEADS,
        pre_norm=False,
        enforce_input_projection=False,
        common_stride=4,
        feature_strides=[4, 8, 16, 32],
        dropout=0.0,
        architectures=[Mask2FormerForUniversalSegmentation.__name__],
    )


def convert_state_dict(official: Mapping[str, Tensor], *, source: object) -> dict[str, Tensor]:
    """Official names -> those of the hub. Expects every official tensor, and no other."""
    moves = official_moves()
    check_layout(
        {key: tuple(value.shape) for key, value in official.items()},
        {move.official: move.shape for move in moves},
        source=source,
    )
    ours: dict[str, Tensor] = {}
    for move in moves:
        value = official[move.official]
        _check_values(move, value, source=source)
        if move.merges:
            value = value[..., torch.from_numpy(merging_order(value.shape[-1] // 4))]
        if move.names:
            blocks = value.chunk(len(move.names))
            # Cloned: blocks of one tensor share its memory, which a safetensors file cannot.
            ours |= {name: block.clone() for name, block in zip(move.names, blocks, strict=True)}
    return ours


def _check_values(move: Move, value: Tensor, *, source: object) -> None:
    expected = torch.int64 if move.is_index else torch.float32
    if value.dtype != expected:
        raise ValueError(
            f"{move.official} in {source} is {value.dtype}, expected {expected}; download the "
            "official checkpoint again"
        )
    if move.is_index and not torch.equal(value, torch.from_numpy(relative_position_index())):
        raise ValueError(
            f"{move.official} in {source} is not the table of a {sizes.WINDOW} x {sizes.WINDOW} "
            "window; download the official checkpoint again"
        )


def _check_hash(path: Path) -> str:
    """SHA-256 of the file; its name, where it ends in a hash, must agree."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; expected mmdet's .pth file")
    digest = sha256_of(path)
    named = _HASHED_NAME.fullmatch(path.name)
    if named and not digest.startswith(named[1]):
        raise ValueError(
            f"{path} is damaged or another file: by its name its SHA-256 begins with {named[1]}, "
            f"got {digest[:8]}; download it again"
        )
    return digest


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of an mmdet checkpoint, whose class names are checked if it holds them."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        # torch explains itself in paragraphs.
        unsafe = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        reason = (
            f"holds more than plain values ({unsafe[1]})" if unsafe else "is no whole torch file"
        )
        raise ValueError(
            f"{path} is no checkpoint that can be read safely: it {reason}; download it again"
        ) from error
    content = checkpoint if isinstance(checkpoint, dict) else {}
    weights, meta = content.get("state_dict"), content.get("meta")
    values = list(weights.values()) if isinstance(weights, dict) else []
    if not isinstance(weights, dict) or not values or not all(map(torch.is_tensor, values)):
        raise ValueError(f"{path} is no mmdet checkpoint: expected state_dict, a dict of tensors")
    if isinstance(meta, dict) and (classes := meta.get("CLASSES")):
        check_labels(dict(enumerate(classes)), source=path)
    return weights
