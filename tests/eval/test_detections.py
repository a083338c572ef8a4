"""Files of detections: what goes in comes out, and what others wrote is understood."""

import json

import numpy as np
import pytest

from eval.detections import (
    DetectionFile,
    DetectionHeader,
    ImageDetections,
    header_text,
    image_text,
    write_detections,
)
from eval.geneval_rules import Detection, evaluate_image, parse_metadata
from eval.run_lengths import decode_mask, encode_mask
from tests.eval.scoring_goldens import load_cases

HEADER = DetectionHeader("a detector", "0123abcd", color_classifier="a classifier")
IMAGE = "00000/samples/00000.png"


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        (["..", ".."], [4]),
        (["##", "##"], [0, 4]),
        (["#.", ".#"], [0, 1, 2, 1]),
        ([".#.", ".##"], [2, 2, 1, 1]),  # column by column
    ],
)
def test_masks_are_stored_as_cocos_run_lengths(rows, counts):
    mask = np.array([[pixel == "#" for pixel in row] for row in rows])
    runs = encode_mask(mask)
    assert runs == {"size": list(mask.shape), "counts": counts}
    assert np.array_equal(decode_mask(runs), mask)


def test_any_mask_survives_json():
    rng = np.random.default_rng(0)
    for density in (0, 0.1, 0.5, 0.9, 1):
        mask = rng.random((31, 17)) < density
        decoded = decode_mask(json.loads(json.dumps(encode_mask(mask))))
        assert decoded.dtype == np.bool_
        assert np.array_equal(decoded, mask)


@pytest.mark.parametrize(
    "runs",
    [
        None,
        [4],
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [2.0, 2.0]},
        {"size": [2, 2], "counts": "04"},
        {"size": [0, 2], "counts": []},
        {"size": [2], "counts": [2]},
    ],
)
def test_run_lengths_that_do_not_fill_a_mask_are_refused(runs):
    with pytest.raises(ValueError, match=r"counts that add up to h \* w"):
        decode_mask(runs)


@pytest.mark.parametrize("mask", [np.zeros((2, 2)), np.zeros(4, dtype=bool)])
def test_only_bool_masks_are_stored(mask):
    with pytest.raises(ValueError, match=r"a mask must be bool of \(h, w\)"):
        encode_mask(mask)


def random_detections(rng, num_objects, *, with_masks=True):
    return [
        Detection(
            tuple(rng.random(4) * 512),
            rng.random(),
            mask=rng.random((12, 9)) < 0.5 if with_masks else None,
        )
        for _ in range(num_objects)
    ]


def test_what_was_written_is_read_back_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    written = [
        ImageDetections(
            f"{index:05d}/samples/0000ü.png",
            {"dog": random_detections(rng, 5), "cup": random_detections(rng, 2, with_masks=False)},
            {"dog": ["red", None, "blue", None, None]},
        )
        for index in range(3)
    ]
    write_detections(tmp_path / "seen.jsonl", HEADER, written)
    stored = DetectionFile(tmp_path / "seen.jsonl")
    assert stored.header == HEADER
    assert stored.images == tuple(image.image for image in written)
    for image in reversed(written):
        found = stored.read(image.image)
        assert found.image == image.image
        assert found.detections == image.detections  # boxes and scores, exactly
        assert found.colors == image.colors
        for ours, theirs in zip(found.detections["dog"], image.detections["dog"], strict=True):
            assert np.array_equal(ours.mask, theirs.mask)
        assert [thing.mask for thing in found.detections["cup"]] == [None, None]


def test_lines_can_be_added_one_by_one(tmp_path):
    image = ImageDetections(IMAGE, {"dog": random_detections(np.random.default_rng(0), 1)})
    write_detections(tmp_path / "whole.jsonl", HEADER, [image])
    assert (tmp_path / "whole.jsonl").read_text() == header_text(HEADER) + image_text(image)


def test_stored_detections_get_the_verdict_of_the_ones_at_hand(tmp_path):
    cases = load_cases("geneval_verdicts")[:60]
    images = []
    for case in cases:
        things = case["detections"]
        detections = {
            name: [Detection(tuple(thing["box"]), thing["score"]) for thing in found]
            for name, found in things.items()
        }
        colors = {name: [thing["color"] for thing in found] for name, found in things.items()}
        images.append(ImageDetections(case["id"], detections, colors))
    names = tuple(sorted({name for image in images for name in image.detections}))
    write_detections(tmp_path / "seen.jsonl", DetectionHeader("a", classes=names), images)
    stored = DetectionFile(tmp_path / "seen.jsonl")
    for case in cases:
        image = stored.read(case["id"])
        verdict = evaluate_image(
            parse_metadata(case["metadata"]),
            image.detections,
            classify_colors=image.answer_colors(),
        )
        assert verdict.correct == case["expected"]["correct"]


def write_lines(path, *records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.mark.parametrize(
    "detections",
    [
        {"dog": [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 0.25]]},
        {"dog": {"boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "scores": [0.5, 0.25]}},
        [[] if name != "dog" else [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 0.25]] for name in range(80)],
    ],
)
def test_boxes_and_scores_alone_are_enough(tmp_path, detections):
    if isinstance(detections, list):
        detections[16] = [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 0.25]]
    path = write_lines(
        tmp_path / "a.jsonl", {"detector": "mmdet"}, {"image": IMAGE, "detections": detections}
    )
    found = DetectionFile(path).read(IMAGE)
    expected = [Detection((1, 2, 3, 4), 0.5), Detection((5, 6, 7, 8), 0.25)]
    assert found.detections == {"dog": expected}
    assert found.colors == {}


def test_colors_are_asked_for_once_and_kept():
    dogs = random_detections(np.random.default_rng(0), 3)
    image = ImageDetections(IMAGE, {"dog": dogs}, {"dog": [None, "red", None]})
    asked = []

    def classify(class_name, found):
        asked.append((class_name, list(found)))
        return ["blue"] * len(found)

    answer = image.answer_colors(classify)
    assert answer("dog", dogs[:2]) == ["blue", "red"]
    assert answer("dog", dogs[:2]) == ["blue", "red"]
    assert asked == [("dog", dogs[:1])]
    assert image.colors == {"dog": ["blue", "red", None]}


def test_objects_of_one_box_and_score_keep_their_own_colors():
    twins = [Detection((0, 0, 5, 5), 0.5), Detection((0, 0, 5, 5), 0.5)]
    image = ImageDetections(IMAGE, {"dog": twins}, {"dog": ["red", "blue"]})
    assert image.answer_colors()("dog", twins[::-1]) == ["blue", "red"]


def test_a_color_that_nobody_stored_is_an_error():
    dogs = random_detections(np.random.default_rng(0), 1)
    with pytest.raises(ValueError, match=rf"{IMAGE}: no colour is stored for a dog; score with"):
        ImageDetections(IMAGE, {"dog": dogs}).answer_colors()("dog", dogs)


def test_a_class_is_stored_with_all_its_masks_or_none():
    mixed = [Detection((0, 0, 1, 1), 1), Detection((0, 0, 1, 1), 1, mask=np.ones((1, 1), bool))]
    with pytest.raises(ValueError, match="either all detections of a class have a mask, or none"):
        image_text(ImageDetections(IMAGE, {"dog": mixed}))


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (None, "detections must be an object of classes, or a list of 80 classes, got None"),
        ([[]] * 79, "a list of 80 classes"),
        ({"mouse": []}, "unknown class 'mouse'; expected those of the header"),
        ({"dog": "none"}, "dog: expected boxes and scores, or rows of"),
        ({"dog": [[1, 2, 3, 0.5]]}, "dog: a detection needs a box of 4 finite numbers"),
        ({"dog": [[]]}, "dog: "),
        ({"dog": [[1, 2, 3, float("nan"), 0.5]]}, "dog: a detection needs a box of 4 finite"),
        ({"dog": {"boxes": [[1, 2, 3, 4]]}}, "dog: lists must be equally long, got .*'scores': 0"),
        (
            {"dog": {"boxes": [[1, 2, 3, 4]], "scores": [1], "masks": []}},
            "dog: lists must be equally long, got .*'masks': 0",
        ),
        (
            {"dog": {"boxes": [[1, 2, 3, 4]], "scores": [1], "colors": ["red", "red"]}},
            "dog: lists must be equally long, got .*'colors': 2",
        ),
        (
            {"dog": {"boxes": [[1, 2, 3, 4]], "scores": [1], "masks": [[4]]}},
            "dog: a mask must have a size",
        ),
    ],
)
def test_a_wrong_line_is_an_error_that_names_image_and_class(tmp_path, detections, message):
    path = write_lines(
        tmp_path / "a.jsonl", {"detector": "mmdet"}, {"image": IMAGE, "detections": detections}
    )
    with pytest.raises(ValueError, match=rf"a\.jsonl, {IMAGE}.*{message}"):
        DetectionFile(path).read(IMAGE)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: expected one JSON object"),
        ([{"image": IMAGE, "detections": {}}], "line 1: expected the detector"),
        ([{"detector": "mmdet", "classes": "dog"}], "line 1: expected the detector"),
        ([{"detector": "mmdet", "fingerprint": 3}], "line 1: expected the detector"),
        ([{"detector": "mmdet"}, [1]], "line 2: expected one JSON object, got list"),
        ([{"detector": "mmdet"}, {"detections": {}}], "line 2: image must be a path below"),
        ([{"detector": "mmdet"}, {"image": "a"}, {"image": "a"}], "line 3: a has a line already"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_line(tmp_path, lines, message):
    with pytest.raises(ValueError, match=rf"a\.jsonl, {message}"):
        DetectionFile(write_lines(tmp_path / "a.jsonl", *lines))


def test_an_image_without_a_line_is_an_error(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"detector": "mmdet"})
    with pytest.raises(ValueError, match="no line has this image; detect again"):
        DetectionFile(path).read(IMAGE)


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no detections at .*a\.jsonl"):
        DetectionFile(tmp_path / "a.jsonl")
