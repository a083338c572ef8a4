"""Mask2Former as GenEval's official detector runs it, on transformers' network.

Weights are the official ones after `convert_detector`, or those of the hub, which were trained
apart and give other scores. Before and after the network everything follows mmdet, not the image
processor of transformers: that one stretches, resizes with another filter and scores masks at
384 x 384. One image per forward pass, because padded pixels are never masked; float32 without
TF32, because confidences collapse with less.

Shapes: Q queries, C classes, h x w mask logits, a quarter of the pixels each way.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation
from transformers.utils import logging as transformers_logging

from eval.detector import CLASS_NAMES, Detections, coco_names
from eval.detector_self_test import KnownOutput, check_output, known_pixels, read_record
from eval.file_hashes import sha256_of
from eval.geneval_rules import Detection
from eval.mmdet_pipeline import Instances, postprocess, preprocess
from eval.precision import full_precision
from mllm.loading_bar import hide_short_bar
from unitok.files import read_json
from unitok.hub import CONFIG_FILE, RELEASED_PATTERNS, explain_download

HUB_NAME = "facebook/mask2former-swin-small-coco-instance"
OFFICIAL_HASH = "743b7d99"  # how the SHA-256 of the official checkpoint begins
SOURCE_KEY = "source_checkpoint"  # where config.json records what a folder was converted from
NOT_OFFICIAL = "not the official weights"

# COCO's names in the spelling of older label files.
_SPELLINGS = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
# Parts of transformers' model that detection never runs, and tables that it computes itself.
_UNUSED_KEYS = re.compile(r"criterion\.empty_weight|.*\.encoder\.swin\.layernorm\.(weight|bias)")
_COMPUTED_KEYS = re.compile(r".*\.relative_position_index")


class Mask2FormerDetector:
    """A `Detector` with 80 COCO classes; load one with `from_pretrained`."""

    class_names = CLASS_NAMES

    def __init__(
        self, model: Mask2FormerForUniversalSegmentation, *, name: str, fingerprint: str
    ) -> None:
        self.model = model.eval()
        self.name = name
        self.fingerprint = fingerprint

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str | torch.device = "cpu"
    ) -> "Mask2FormerDetector":
        """Load a folder that `convert_detector` wrote, or the hub model `HUB_NAME`, strictly.

        Raises FileNotFoundError for an unknown name, ValueError for a model with other keys,
        shapes or class names, and RuntimeError for one that fails its self-test on `device`.
        """
        folder = _find_folder(name)
        config = read_json(folder / CONFIG_FILE)
        if config.get("model_type") != "mask2former":
            raise ValueError(
                f"{folder} holds a model of type {config.get('model_type')!r}, expected "
                f"'mask2former'; {_remedy()}"
            )
        labels = {int(index): label for index, label in config.get("id2label", {}).items()}
        check_labels(labels, source=folder)
        title, fingerprint = _identify(config, name, folder)
        detector = cls(_load_model(folder), name=title, fingerprint=fingerprint)
        expected = read_record(folder) or detector.see_known_picture()
        detector.model.to(device)
        found = detector.see_known_picture()
        check_output(found, expected, detector=title, device=detector.model.device)
        return detector

    def detect(self, image: Image.Image) -> Detections:
        """What is found in one image, by class, in the order of class probability."""
        prepared = preprocess(image)
        class_logits, mask_logits = self.forward(prepared.pixels)
        instances = postprocess(
            class_logits[0],
            mask_logits[0],
            padded_size=prepared.padded_size,
            resized_size=prepared.resized_size,
            original_size=prepared.original_size,
        )
        return _by_class(instances)

    def see_known_picture(self) -> KnownOutput:
        """What the self-test compares."""
        class_logits, mask_logits = self.forward(known_pixels())
        return KnownOutput(class_logits[0].cpu(), mask_logits[0].cpu())

    @torch.inference_mode()
    def forward(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Class logits (1, Q, C + 1) and mask logits (1, Q, h, w) of pixels (1, 3, 4h, 4w)."""
        with full_precision():
            output = self.model(pixel_values=torch.from_numpy(pixels).to(self.model.device))
        return output.class_queries_logits, output.masks_queries_logits


def check_labels(id2label: Mapping[int, str], *, source: object) -> None:
    """Refuse a model whose labels are not COCO's 80 classes in their order."""
    found = [_SPELLINGS.get(id2label[index], id2label[index]) for index in sorted(id2label)]
    expected = coco_names()
    if tuple(found) == expected:
        return
    wrong = next(
        (
            f"label {index} is {ours!r}, expected {theirs!r}"
            for index, (ours, theirs) in enumerate(zip(found, expected, strict=False))
            if ours != theirs
        ),
        f"there are {len(found)} labels, expected {len(expected)}",
    )
    raise ValueError(f"{source} does not name COCO's classes: {wrong}; {_remedy()}")


def _by_class(instances: Instances) -> Detections:
    detections: Detections = {}
    scores, boxes = instances.scores.tolist(), instances.boxes.tolist()
    masks = instances.masks.cpu().numpy()
    for index, label in enumerate(instances.labels.tolist()):
        detection = Detection(tuple(boxes[index]), scores[index], mask=masks[index])
        detections.setdefault(CLASS_NAMES[label], []).append(detection)
    return detections


def _find_folder(name: str | Path) -> Path:
    path = Path(name)
    if (path / CONFIG_FILE).is_file():
        return path
    if path.exists():
        raise FileNotFoundError(f"{path} is no converted detector; {_remedy()}")
    if str(name) != HUB_NAME:
        raise FileNotFoundError(f"no detector called {str(name)!r}; {_remedy()}")
    remedy = f"download it once with: hf download {HUB_NAME} config.json model.safetensors"
    with explain_download(HUB_NAME, revision=None, expected=remedy) as local_only:
        return Path(
            snapshot_download(
                HUB_NAME, ignore_patterns=RELEASED_PATTERNS, local_files_only=local_only
            )
        )


def _remedy() -> str:
    return (
        "convert the official weights with: python -m eval.geneval convert-detector FILE.pth "
        f"-o FOLDER and name FOLDER, or name {HUB_NAME} ({NOT_OFFICIAL})"
    )


def _load_model(folder: Path) -> Mask2FormerForUniversalSegmentation:
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} holds no model.safetensors; {_remedy()}")
    with _no_load_report(), hide_short_bar([weights]):
        loaded: Any = Mask2FormerForUniversalSegmentation.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are named below, with the others
            output_loading_info=True,
        )
    model: Mask2FormerForUniversalSegmentation
    model, info = loaded
    if problems := _key_problems(info):
        raise ValueError(f"{weights} does not fit its config: {'; '.join(problems)}; {_remedy()}")
    return model


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Keep transformers from advising to train what detection never runs."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _key_problems(info: dict[str, Any]) -> list[str]:
    missing = sorted(key for key in info["missing_keys"] if not _UNUSED_KEYS.fullmatch(key))
    unknown = sorted(key for key in info["unexpected_keys"] if not _COMPUTED_KEYS.fullmatch(key))
    misshapen = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    kinds = {"missing": missing, "unknown": unknown, "misshapen": misshapen}
    return [f"{kind} {', '.join(keys)}" for kind, keys in kinds.items() if keys]


def _identify(config: dict[str, Any], name: str | Path, folder: Path) -> tuple[str, str]:
    """The detector's name, and the SHA-256 of the file that it comes from."""
    source = config.get(SOURCE_KEY)
    if source is None:
        title = HUB_NAME if str(name) == HUB_NAME else folder.resolve().name
        return f"{title} ({NOT_OFFICIAL})", sha256_of(folder / "model.safetensors")
    title = Path(source["file"]).stem
    if not source["sha256"].startswith(OFFICIAL_HASH):
        title += f" ({NOT_OFFICIAL})"
    return title, source["sha256"]
