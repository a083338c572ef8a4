"""What is measured of an ablation's tokenizer: pictures, codebooks, texts and a linear probe.

Scenes hold combinations that training leaves out; the single objects of the 80 classes (ten
colours, eight shapes) are drawn afresh.

Shapes: N pictures, E feature width, G captions of a group.
"""

import random
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from torch import Tensor

from eval.codebook_use import CodebookUse, measure_use
from eval.logistic_regression import fit_best
from eval.scene_scores import scene_pixels
from eval.scene_text import counted, example
from eval.scenes import COLORS, compose
from eval.shapes import SHAPES
from eval.tokenizer_peers import UniTokPeer
from eval.zeroshot_classifier import class_logits, encode_classes, top_accuracies
from train.config import RunConfig
from train.residual_quantizer import ResidualQuantizer
from train.tokenizer_config import LossWeights
from unitok.image import psnr
from unitok.model import UniTok

CLASSES = tuple(product(COLORS, SHAPES))
GROUP = 10  # captions of which one belongs to the picture: chance is 10 %
ENCODE_BATCH = 64


class ScoreSizes(RunConfig):
    """How many pictures are looked at."""

    num_scenes: int = 500  # a multiple of GROUP
    test_per_class: int = 6
    train_per_class: int = 12


@dataclass(frozen=True)
class AblationScores:
    """None: what the variant never learned is not measured. Accuracies are in percent."""

    psnr: float | None  # dB, mean over held-out scenes
    usage: float  # percent of the entries that held-out scenes use, mean over codebooks
    perplexity: float  # percent of the entries, mean over codebooks
    captions: float | None  # which of 10 held-out captions is the picture's
    zero_shot: float | None  # which of 80 names
    probe: float  # the 80 classes again, by a linear classifier on frozen features


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pixels (N, 3, S, S), and what belongs to each."""

    pixels: Tensor
    captions: tuple[str, ...] = ()
    labels_N: Tensor | None = None


@torch.no_grad()
def measure(model: UniTok, weights: LossWeights, sizes: ScoreSizes) -> AblationScores:
    """All scores of a model in eval mode that was trained with these weights."""
    size = model.config.image_size
    scenes = held_out_scenes(sizes.num_scenes, size)
    single = single_objects("test", sizes.test_per_class, size)
    codes = torch.cat([model.encode(part) for part in scenes.pixels.split(ENCODE_BATCH)])
    use = codebook_use(model, codes)
    return AblationScores(
        psnr=mean_psnr(model, codes, scenes.pixels) if weights.reconstructs else None,
        usage=float(use.usage_K.mean()),
        perplexity=100 * float(use.perplexity_K.mean()) / model.quantizer.codebook_size,
        captions=caption_accuracy(model, scenes) if weights.clip else None,
        zero_shot=zero_shot_accuracy(model, single) if weights.clip else None,
        probe=probe_accuracy(
            model, train=single_objects("train", sizes.train_per_class, size), test=single
        ),
    )


@cache  # the same for every variant and seed
def held_out_scenes(num_scenes: int, image_size: int) -> Pictures:
    """Scenes with a held-out combination each, and a caption of each."""
    rng = random.Random("ablation scenes")
    scenes, captions = zip(*(example(rng, "held_out") for _ in range(num_scenes)), strict=True)
    return Pictures(scene_pixels(list(scenes), image_size), captions=captions)


@cache
def single_objects(use: str, per_class: int, image_size: int) -> Pictures:
    """One object in each picture, `per_class` pictures of each class."""
    rng = random.Random(f"ablation classes: {use}")
    labels = [label for label in range(len(CLASSES)) for _ in range(per_class)]
    looks = [(shape, color) for color, shape in (CLASSES[label] for label in labels)]
    scenes = [compose(rng, [look]) for look in looks]
    return Pictures(scene_pixels(scenes, image_size), labels_N=torch.tensor(labels))


def mean_psnr(model: UniTok, codes: Tensor, pixels: Tensor) -> float:
    """Of pictures decoded from their codes, in dB."""
    parts = zip(codes.split(ENCODE_BATCH), pixels.split(ENCODE_BATCH), strict=True)
    return torch.cat([psnr(model.decode(own), part) for own, part in parts]).mean().item()


def codebook_use(model: UniTok, codes: Tensor) -> CodebookUse:
    """Of each codebook; sub-codes that share one count together."""
    if isinstance(model.quantizer, ResidualQuantizer):
        codes = codes.flatten(1)[..., None]
    return measure_use(codes.numpy(), model.quantizer.codebook_size)


def caption_accuracy(model: UniTok, scenes: Pictures) -> float:
    """Percent of the pictures nearest to their own caption among those of a group."""
    images_NE = _encode(model.encode_image, scenes.pixels)
    texts_NE = model.encode_text(list(scenes.captions))
    right = [
        (images @ texts.T).argmax(dim=1) == torch.arange(len(images))
        for images, texts in zip(images_NE.split(GROUP), texts_NE.split(GROUP), strict=True)
    ]
    return 100 * torch.cat(right).double().mean().item()


def zero_shot_accuracy(model: UniTok, single: Pictures) -> float:
    """Percent of the pictures nearest to the name of their class."""
    names = [counted(1, f"{color} {shape}") for color, shape in CLASSES]
    vectors = encode_classes(model.encode_text, names=names, templates=["{}"])
    assert single.labels_N is not None
    logits = class_logits(_encode(model.encode_image, single.pixels), vectors)
    return 100 * top_accuracies(logits, single.labels_N).top1


def probe_accuracy(model: UniTok, *, train: Pictures, test: Pictures) -> float:
    """Percent of the test pictures whose class a linear classifier finds."""
    peer = UniTokPeer(model)
    assert train.labels_N is not None
    assert test.labels_N is not None
    features_NE = _encode(peer.probe_features, train.pixels)
    with torch.enable_grad():
        sweep = fit_best(features_NE, train.labels_N, num_classes=len(CLASSES))
    guesses = sweep.classifier.predict(_encode(peer.probe_features, test.pixels))
    return 100 * (guesses == test.labels_N).double().mean().item()


def _encode(encode, pixels: Tensor) -> Tensor:
    return torch.cat([encode(part) for part in pixels.split(ENCODE_BATCH)])
