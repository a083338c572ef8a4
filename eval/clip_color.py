"""CLIP names the colour of an object, as GenEval asks it to, through open_clip.

Shapes: N objects, E feature width, 10 colours.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten

import open_clip
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from eval.geneval_color import color_prompts, object_crop
from eval.geneval_rules import (
    COLORS,
    OFFICIAL_OPTIONS,
    ColorClassifier,
    Detection,
    GenEvalOptions,
)
from eval.precision import full_precision
from unitok.fingerprint import fingerprint
from unitok.hub import explain_download

PRETRAINED = "openai"
MAX_REASON = 200  # characters


class ClipColors:
    """Names colours with a CLIP model; `for_image` gives the classifier of one image.

    Differs from the official scorer: float32 on every device, where it lets CUDA use float16.
    """

    def __init__(
        self,
        model: open_clip.CLIP,
        *,
        tokenizer: Callable[[list[str]], Tensor],
        transform: Callable[[Image.Image], Tensor],
        options: GenEvalOptions = OFFICIAL_OPTIONS,
    ) -> None:
        self.model = model.eval()
        self.options = options
        self._tokenizer = tokenizer
        self._transform = transform
        self._device = next(model.parameters()).device
        self._color_features: dict[str, Tensor] = {}  # by class name

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path | None = None,
        *,
        options: GenEvalOptions = OFFICIAL_OPTIONS,
        device: str | torch.device = "cpu",
    ) -> "ClipColors":
        """The architecture `options.clip_model` with OpenAI's weights.

        They come from the hub or its cache, or from `weights`, a safetensors file of open_clip.
        """
        name = options.clip_model
        if name not in open_clip.list_models():
            raise ValueError(
                f"open_clip knows no CLIP model {name!r}; expected one such as "
                f"{OFFICIAL_OPTIONS.clip_model}"
            )
        path = _fetch_weights(name) if weights is None else Path(weights)
        if not path.is_file() or path.suffix != ".safetensors":
            raise FileNotFoundError(
                f"no safetensors file at {path}; expected open_clip's weights of {name}"
            )
        model, transform = _build_model(name, path, device)
        tokenizer = open_clip.get_tokenizer(name)
        return cls(model, tokenizer=tokenizer, transform=transform, options=options)

    @property
    def name(self) -> str:
        """Architecture and fingerprint of the weights, to be stored beside a score."""
        return f"CLIP {self.options.clip_model} {fingerprint(self.model.state_dict())}"

    def for_image(self, image: Image.Image) -> ColorClassifier:
        """The callable that `evaluate_image` asks for the colours of objects in this image."""
        return partial(self.classify, image)

    @torch.inference_mode()
    def classify(
        self, image: Image.Image, class_name: str, detections: Sequence[Detection]
    ) -> list[str]:
        """One of GenEval's ten colours for each detection; the first wins a tie."""
        if not detections:
            return []
        crops = [self._crop(image, class_name, detection) for detection in detections]
        pixels = torch.stack([self._transform(crop) for crop in crops])
        with full_precision():
            features = self.model.encode_image(pixels.to(self._device))  # (N, E)
            logits = 100 * F.normalize(features, dim=-1) @ self._class_features(class_name).T
        return [COLORS[index] for index in logits.argmax(dim=-1).tolist()]

    def _crop(self, image: Image.Image, class_name: str, detection: Detection) -> Image.Image:
        crop = object_crop(image, detection, options=self.options)
        if 0 in crop.size:
            raise ValueError(
                f"cannot name the colour of the {class_name} at {detection.box}: its box rounds "
                "to no pixels; remove this detection"
            )
        return crop

    def _class_features(self, class_name: str) -> Tensor:
        """Normalised mean of the normalised prompts of every colour, (10, E)."""
        if class_name not in self._color_features:
            rows = []
            for prompts in color_prompts(class_name).values():
                tokens = self._tokenizer(list(prompts)).to(self._device)
                features = F.normalize(self.model.encode_text(tokens), dim=-1)
                rows.append(F.normalize(features.mean(dim=0), dim=-1))
            self._color_features[class_name] = torch.stack(rows)
        return self._color_features[class_name]


def _build_model(
    name: str, weights: Path, device: str | torch.device
) -> tuple[open_clip.CLIP, Callable[[Image.Image], Tensor]]:
    """The model and what it does to a picture first."""
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            name,
            pretrained=str(weights),
            precision="fp32",
            device=device,
            force_quick_gelu=True,  # OpenAI's were trained with it; open_clip only warns
        )
    except (SafetensorError, RuntimeError) as error:
        reason = shorten(str(error), MAX_REASON)  # torch names every key
        raise ValueError(
            f"{weights} does not hold the weights of CLIP {name}: {reason}; expected those that "
            "open_clip publishes for it"
        ) from error
    return model, transform


def _fetch_weights(name: str) -> Path:
    """OpenAI's weights of an architecture, from the hub's cache or the hub."""
    settings = open_clip.get_pretrained_cfg(name, PRETRAINED)
    repo = str(settings.get("hf_hub", "")).rstrip("/")
    if not repo:
        raise ValueError(
            f"open_clip has no OpenAI weights of {name}; expected a model such as "
            f"{OFFICIAL_OPTIONS.clip_model}, or name a safetensors file"
        )
    remedy = (
        f"for colours, download it once with: hf download {repo} {HF_SAFE_WEIGHTS_NAME} "
        "(it goes into the hub's cache), or name that file if it lies elsewhere"
    )
    with explain_download(repo, revision=None, expected=remedy) as local_only:
        return Path(hf_hub_download(repo, HF_SAFE_WEIGHTS_NAME, local_files_only=local_only))
