"""CLIP as GenEval's colour classifier, with a tiny CLIP of random weights."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from eval.clip_color import ClipColors
from eval.geneval_color import color_prompts, object_crop
from eval.geneval_rules import COLORS, Detection, GenEvalOptions, evaluate_image, parse_metadata
from tests.eval.tiny_clip import TINY, save_tiny_clip

OPTIONS = GenEvalOptions(clip_model=TINY)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def colors(weights):
    return ClipColors.from_pretrained(weights, options=OPTIONS)


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


DETECTIONS = [
    Detection((0, 0, 30, 30), 0.9),
    Detection((20, 5, 60, 40), 0.8),
    Detection((3, 3, 9, 9), 0.7, mask=np.eye(40, 60, dtype=bool)),
]


def test_the_color_is_the_best_of_the_averaged_prompts(colors, picture):
    """The same, spelt out for one object at a time."""
    model = colors.model
    _, _, transform = open_clip.create_model_and_transforms(TINY)
    tokenizer = open_clip.get_tokenizer(TINY)
    with torch.inference_mode():
        columns = []
        for prompts in color_prompts("dog").values():
            features = model.encode_text(tokenizer(list(prompts)))
            mean = (features / features.norm(dim=-1, keepdim=True)).mean(dim=0)
            columns.append(mean / mean.norm())
        expected = []
        for detection in DETECTIONS:
            crop = object_crop(picture, detection, options=OPTIONS)
            feature = model.encode_image(transform(crop)[None])[0]
            logits = [100 * feature @ column / feature.norm() for column in columns]
            expected.append(COLORS[int(torch.stack(logits).argmax())])
    assert colors.classify(picture, "dog", DETECTIONS) == expected


def test_a_prompt_is_judged_with_the_classifier_of_its_image(colors, picture):
    record = {"tag": "colors", "prompt": "a photo of a red dog"}
    answer = colors.classify(picture, "dog", DETECTIONS[:1])[0]
    for color in COLORS:
        clause = {"class": "dog", "count": 1, "color": color}
        verdict = evaluate_image(
            parse_metadata(record | {"include": [clause]}),
            {"dog": DETECTIONS},
            classify_colors=colors.for_image(picture),
        )
        assert verdict.correct == (color == answer)


def test_the_class_name_is_part_of_the_question(colors, picture):
    seen = []
    tokenizer = colors._tokenizer
    other = ClipColors(
        colors.model,
        tokenizer=lambda texts: seen.extend(texts) or tokenizer(texts),
        transform=colors._transform,
        options=OPTIONS,
    )
    for _ in range(2):
        other.classify(picture, "cup", DETECTIONS[:1])
    assert seen == [prompt for prompts in color_prompts("cup").values() for prompt in prompts]


def test_options_reach_the_crop(weights, picture):
    shown = []
    options = GenEvalOptions(clip_model=TINY, crop=False)
    whole = ClipColors.from_pretrained(weights, options=options)
    transform = whole._transform
    whole._transform = lambda crop: shown.append(crop) or transform(crop)
    whole.classify(picture, "dog", DETECTIONS[:1])
    assert [crop.size for crop in shown] == [picture.size]


def test_no_object_needs_no_answer(colors, picture):
    assert colors.classify(picture, "dog", []) == []


def test_weights_are_float32_with_the_activation_they_were_trained_with(colors):
    assert {value.dtype for value in colors.model.parameters()} == {torch.float32}
    activation = colors.model.visual.transformer.resblocks[0].mlp.gelu
    assert isinstance(activation, open_clip.transformer.QuickGELU)
    assert not colors.model.training


def test_the_name_tells_two_sets_of_weights_apart(colors):
    assert colors.name.startswith(f"CLIP {TINY} ")
    torch.manual_seed(1)
    other = open_clip.create_model(TINY, force_quick_gelu=True)
    assert ClipColors(other, tokenizer=None, transform=None, options=OPTIONS).name != colors.name


def test_an_object_without_a_pixel_is_an_error_that_names_it(colors, picture):
    flat = Detection((5, 5, 5.4, 20), 0.5)
    with pytest.raises(ValueError, match=r"colour of the dog at \(5\.0, 5\.0, 5\.4.* no pixels"):
        colors.classify(picture, "dog", [flat])


def test_weights_of_another_model_are_refused(weights, tmp_path):
    save_file({"positional_embedding": torch.zeros(77, 32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=f"does not hold the weights of CLIP {TINY}.*Missing key"):
        ClipColors.from_pretrained(tmp_path / "other.safetensors", options=OPTIONS)


def test_a_damaged_file_is_refused(weights, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"does not hold the weights of CLIP {TINY}"):
        ClipColors.from_pretrained(tmp_path / "cut.safetensors", options=OPTIONS)


@pytest.mark.parametrize("name", ["missing.safetensors", "pickled.pt"])
def test_only_safetensors_are_read(weights, tmp_path, name):
    (tmp_path / "pickled.pt").touch()
    with pytest.raises(FileNotFoundError, match=f"no safetensors file at .*{name}"):
        ClipColors.from_pretrained(tmp_path / name, options=OPTIONS)


def test_weights_out_of_reach_say_what_to_get(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    command = r"hf download timm/vit_large_patch14_clip_224\.openai open_clip_model\.safetensors"
    with pytest.raises(FileNotFoundError, match=command):
        ClipColors.from_pretrained()


@pytest.mark.parametrize(
    ("name", "message"),
    [("ViT-Z-99", "open_clip knows no CLIP model 'ViT-Z-99'"), (TINY, "has no OpenAI weights")],
)
def test_an_architecture_without_weights_is_an_error(weights, name, message):
    with pytest.raises(ValueError, match=message):
        ClipColors.from_pretrained(options=GenEvalOptions(clip_model=name))
