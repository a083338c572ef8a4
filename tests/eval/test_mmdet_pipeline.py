"""What happens before and after the detector's network, against mmdet's own."""

import hashlib
from operator import itemgetter

import numpy as np
import pytest
import torch
from PIL import Image

from eval.mmdet_pipeline import postprocess, preprocess, tight_boxes
from tests.eval.detector_goldens import load_items, open_image
from tests.eval.scoring_goldens import load_cases

SQUARE = {"padded_size": (8, 8), "resized_size": (8, 8), "original_size": (8, 8)}


@pytest.mark.parametrize("name", ["img0", "img1", "full"])
def test_the_network_input_equals_the_official_one_bit_for_bit(name):
    item = load_items()[name]
    prepared = preprocess(open_image(name), tuple(item["img_scale"]))
    assert prepared.original_size == tuple(item["ori_shape"][:2])
    assert prepared.resized_size == tuple(item["img_shape"][:2])
    assert prepared.padded_size == tuple(item["pad_shape"][:2])
    assert prepared.pixels.dtype == np.float32
    assert hashlib.sha256(prepared.pixels.tobytes()).hexdigest() == item["input_sha256"]


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((256, 256), (800, 800)),
        ((1024, 1024), (800, 800)),
        ((640, 480), (1067, 800)),  # 800 / 480 * 640 = 1066.67
        ((1000, 250), (1333, 333)),  # the long side limits; 333.25
    ],
)
def test_images_are_resized_into_1333_by_800(size, resized):
    prepared = preprocess(Image.new("RGB", size[::-1]))
    assert prepared.original_size == size
    assert prepared.resized_size == resized


def test_padding_is_grey_below_and_beside_the_picture():
    prepared = preprocess(Image.new("RGB", (100, 50), "black"), scale=(100, 50))
    assert prepared.padded_size == (64, 128)
    grey = (np.float32(128) - np.float32([123.675, 116.28, 103.53])) / np.float32(
        [58.395, 57.12, 57.375]
    )
    assert np.array_equal(prepared.pixels[0, :, 50, 0], grey)
    assert np.array_equal(prepared.pixels[0, :, 0, 100], grey)
    assert (prepared.pixels[0, :, 49, 99] < -1.8).all()


def test_a_rotated_photo_is_turned_upright_first():
    pixels = np.arange(96, dtype=np.uint8).reshape(4, 8, 3)
    upright = Image.fromarray(pixels)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[0x0112] = 6  # orientation: show it turned by 90 degrees clockwise
    assert np.array_equal(preprocess(stored).pixels, preprocess(upright).pixels)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_any_kind_of_image_becomes_rgb(mode):
    image = Image.new("RGB", (8, 8), "white")
    expected = preprocess(image, scale=(8, 8)).pixels
    assert np.array_equal(preprocess(image.convert(mode), scale=(8, 8)).pixels, expected)


def test_an_image_without_a_pixel_left_is_refused():
    with pytest.raises(ValueError, match="3000 x 1 pixels is too narrow"):
        preprocess(Image.new("RGB", (3000, 1)))


@pytest.mark.parametrize("case", load_cases("detector_postprocess"), ids=itemgetter("id"))
def test_instances_equal_the_official_ones(case):
    found = postprocess(
        torch.tensor(case["class_logits"]),
        torch.tensor(case["mask_logits"]),
        padded_size=tuple(case["padded_hw"]),
        resized_size=tuple(case["resized_hw"]),
        original_size=tuple(case["original_hw"]),
        max_detections=case["max_per_image"],
    )
    columns = (found.labels, found.scores, found.boxes, found.masks.flatten(1).sum(1))
    rows = sorted(
        zip(*(column.tolist() for column in columns), strict=True),
        key=lambda row: (row[0], -row[1], row[2]),
    )
    expected = case["expected_instances"]
    assert [row[0] for row in rows] == [instance["label"] for instance in expected]
    assert [row[2] for row in rows] == [instance["box"] for instance in expected]
    assert [row[3] for row in rows] == [instance["mask_area"] for instance in expected]
    # Measured: no difference; the order of a sum may move the last digit on another machine.
    assert [row[1] for row in rows] == pytest.approx([i["score"] for i in expected], abs=1e-6)
    counts = found.labels.bincount(minlength=case["num_classes"]).tolist()
    assert counts == case["expected_counts_per_class"]


def test_a_query_may_yield_several_classes_and_no_object_is_none():
    class_logits = torch.tensor([[2.0, 1.0, 9.0]])
    found = postprocess(class_logits, torch.ones(1, 8, 8), **SQUARE)
    assert found.labels.tolist() == [0, 1]
    assert found.queries.tolist() == [0, 0]
    probabilities = class_logits.softmax(-1)[0, :2] * torch.tensor(1.0).sigmoid()
    assert found.scores.tolist() == pytest.approx(probabilities.tolist())


def test_a_logit_of_zero_is_outside_and_an_empty_mask_has_no_box_and_no_score():
    found = postprocess(torch.tensor([[5.0, 0.0]]), torch.zeros(1, 8, 8), **SQUARE)
    assert found.scores.tolist() == [0]
    assert found.boxes.tolist() == [[0, 0, 0, 0]]
    assert not found.masks.any()


def test_boxes_are_tight_with_exclusive_right_and_bottom_edges():
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 2, 3] = True
    masks[1, 0, 6] = masks[1, 4, 1] = True
    assert tight_boxes(masks).tolist() == [[3, 2, 4, 3], [1, 0, 7, 5]]


def test_what_lies_in_the_padding_is_cut_off():
    logits = torch.full((1, 8, 8), -1.0)
    logits[:, :, 5:] = 1.0
    found = postprocess(
        torch.tensor([[5.0, 0.0]]),
        logits,
        padded_size=(8, 8),
        resized_size=(8, 4),
        original_size=(8, 4),
    )
    assert not found.masks.any()
