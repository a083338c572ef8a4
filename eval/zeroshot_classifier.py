"""Classifying pictures by texts: ImageNet's class names in CLIP's 80 templates.

Names and templates come from open_clip and are checked by their hashes, because an edit of one
name changes the score. Label i is the i-th class in alphabetical order of WordNet ids.

Shapes: N pictures, C classes, T templates, E feature width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from eval.file_hashes import hash_lines

NAMES_SHA256 = "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"
TEMPLATES_SHA256 = "4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af"
LOGIT_SCALE = 100.0
TOP_K = 5
CLASSES_PER_BATCH = 10  # as open_clip: 800 texts at a time


@dataclass(frozen=True)
class TopAccuracies:
    """How often the label is the first guess, and among the first five."""

    num_items: int
    num_top1: int
    num_top5: int

    @property
    def top1(self) -> float:
        """Share of all pictures, 0..1."""
        return self.num_top1 / self.num_items

    @property
    def top5(self) -> float:
        """Share of all pictures, 0..1."""
        return self.num_top5 / self.num_items


def imagenet_names() -> tuple[str, ...]:
    """The 1,000 class names; "missile" and "sunglasses" stand for two classes each."""
    _check_hash("class names", IMAGENET_CLASSNAMES, NAMES_SHA256)
    return tuple(IMAGENET_CLASSNAMES)


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates, with {} for the class name."""
    templates = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    _check_hash("templates", templates, TEMPLATES_SHA256)
    return templates


def _check_hash(what: str, lines: Sequence[str], expected: str) -> None:
    if (sha256 := hash_lines(lines)) != expected:
        raise RuntimeError(
            f"open_clip's ImageNet {what} have the SHA-256 {sha256[:8]}..., expected "
            f"{expected[:8]}...; install the open_clip_torch that constraints.txt names"
        )


def encode_classes(
    encode_text: Callable[[list[str]], Tensor],
    *,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """One vector per class (C, E) from an encoder of texts, B texts -> (B, E)."""
    vectors = []
    for start in range(0, len(names), CLASSES_PER_BATCH):
        batch = names[start : start + CLASSES_PER_BATCH]
        texts = [template.replace("{}", name) for name in batch for template in templates]
        vectors.append(class_vectors(encode_text(texts).unflatten(0, (len(batch), -1))))
        if progress is not None:
            progress(start + len(batch), len(names))
    return torch.cat(vectors)


def class_vectors(text_features_CTE: Tensor) -> Tensor:
    """Normalise the features of each text, average over the templates, normalise: (C, E)."""
    mean_CE = F.normalize(text_features_CTE, dim=-1).mean(dim=1)
    return F.normalize(mean_CE, dim=-1)


def class_logits(image_features_NE: Tensor, vectors_CE: Tensor) -> Tensor:
    """100 times the product of features and class vectors, (N, C)."""
    return LOGIT_SCALE * image_features_NE @ vectors_CE.T


def top_accuracies(logits_NC: Tensor, labels_N: Tensor) -> TopAccuracies:
    """Hits among the first guess and the first five."""
    num_items, num_classes = logits_NC.shape
    if num_classes < TOP_K or num_items == 0:
        raise ValueError(
            f"logits must be (N, C) of at least 1 picture and {TOP_K} classes, got "
            f"{tuple(logits_NC.shape)}"
        )
    if logits_NC.isnan().any():
        raise ValueError("logits must be numbers, got NaN; the model's features are broken")
    if labels_N.shape != (num_items,) or not ((labels_N >= 0) & (labels_N < num_classes)).all():
        raise ValueError(
            f"labels must be {num_items} numbers from 0 to {num_classes - 1}, got "
            f"{labels_N.tolist()[:10]}"
        )
    is_hit_NK = logits_NC.topk(TOP_K).indices == labels_N[:, None]
    return TopAccuracies(num_items, int(is_hit_NK[:, 0].sum()), int(is_hit_NK.sum()))
