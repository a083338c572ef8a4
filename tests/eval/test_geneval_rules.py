"""GenEval's rules against recorded verdicts of the official scorer, and its documented numbers."""

from operator import itemgetter

import numpy as np
import pytest

from eval.geneval_rules import (
    COLORS,
    Detection,
    GenEvalOptions,
    box_iou,
    evaluate_image,
    keep_detections,
    parse_metadata,
    parse_options,
    relative_position,
)
from tests.eval.scoring_goldens import load_cases


def color_of(record):
    if "color_logits" in record:
        return COLORS[int(np.argmax(record["color_logits"]))]
    return record["color"]


def run_case(case):
    """The verdict and the classes whose colours were asked for, in order."""
    detections = {}
    colors = {}
    for class_name, records in case["detections"].items():
        detections[class_name] = [Detection(item["box"], item["score"]) for item in records]
        for detection, item in zip(detections[class_name], records, strict=True):
            colors[class_name, detection] = color_of(item)
    asked = []

    def classify_colors(class_name, objects):
        asked.append(class_name)
        return [colors[class_name, thing] for thing in objects]

    verdict = evaluate_image(
        parse_metadata(case["metadata"], source=case["id"]),
        detections,
        classify_colors=classify_colors,
        options=parse_options(f"{key}={value}" for key, value in case.get("options", {}).items()),
    )
    return verdict, asked


@pytest.mark.parametrize(
    "case", load_cases("geneval_verdicts") + load_cases("geneval_options"), ids=itemgetter("id")
)
def test_verdicts_equal_the_official_ones(case):
    verdict, asked = run_case(case)
    kept = {
        class_name: [[*detection.box, detection.score] for detection in detections]
        for class_name, detections in verdict.kept.items()
    }
    assert {
        "correct": verdict.correct,
        "reason": verdict.reason,
        "kept": kept,
        "color_classified_classes": asked,
    } == case["expected"]


@pytest.mark.parametrize(
    ("shift", "relations"),
    [
        ((0, 0), set()),
        ((20, 0), set()),  # the whole dead zone: 0.1 * (100 + 100)
        ((40, 0), set()),  # (40 - 20) / 40 is exactly a half, and the rule is strict
        ((41, 0), {"right of"}),
        ((-41, 0), {"left of"}),
        ((0, -41), {"above"}),
        ((0, 41), {"below"}),
        ((200, 200), {"right of", "below"}),
        ((70, 70), {"right of", "below"}),  # each axis keeps 50 of a distance of 99
        ((68, 68), set()),  # each axis keeps 48 of a distance of 96.2: just under a half
    ],
)
def test_equal_boxes_are_related_beyond_twice_the_dead_zone(shift, relations):
    dx, dy = shift
    moved = (100 + dx, 100 + dy, 200 + dx, 200 + dy)
    assert relative_position(moved, (100, 100, 200, 200)) == relations


def test_a_wider_dead_zone_swallows_a_shift():
    box, moved = (100, 100, 200, 200), (141, 100, 241, 200)
    assert relative_position(moved, box, position_threshold=0.25) == frozenset()


def test_equal_scores_are_ranked_last_first():
    first, second = Detection((0, 0, 1, 1), 0.5), Detection((5, 5, 6, 6), 0.5)
    assert keep_detections([first, second], 0.3, options=GenEvalOptions()) == (second, first)


def test_boxes_overlap_on_inclusive_pixels():
    # Adjacent boxes share the column x = 10: 11 of 121 + 121 - 11 pixels.
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 11 / 231
    assert box_iou((5, 5, 4, 4), (9, 9, 8, 8)) == 0


def test_an_overlap_equal_to_the_limit_is_suppressed():
    best, other = Detection((0, 0, 9, 9), 0.9), Detection((0, 0, 9, 4), 0.8)
    assert keep_detections([best, other], 0.3, options=parse_options(["max_overlap=0.5"])) == (
        best,
    )
    assert keep_detections([best, other], 0.3, options=parse_options(["max_overlap=0.51"])) == (
        best,
        other,
    )


def test_a_color_beyond_the_official_ten_is_reported_last():
    metadata = {"tag": "colors", "prompt": "two red cups"}
    metadata["include"] = [{"class": "cup", "count": 2, "color": "red"}]
    cups = [Detection((0, 0, 9, 9), 0.9), Detection((20, 0, 29, 9), 0.8)]
    verdict = evaluate_image(
        parse_metadata(metadata), {"cup": cups}, classify_colors=lambda *_: ["gray", "blue"]
    )
    assert verdict.reason == "expected red cup>=2, found 0 red; and 1 blue, 1 gray"


def test_a_classifier_that_skips_an_object_is_an_error():
    metadata = {"tag": "colors", "prompt": "a red cup"}
    metadata["include"] = [{"class": "cup", "count": 1, "color": "red"}]
    cups = {"cup": [Detection((0, 0, 9, 9), 0.9)]}
    with pytest.raises(ValueError, match="one colour per cup, got 0 for 1"):
        evaluate_image(parse_metadata(metadata), cups, classify_colors=lambda *_: [])


def test_options_without_pairs_are_the_official_defaults():
    assert parse_options([]) == GenEvalOptions(0.3, 0.9, 16, 1.0, 0.1, "#999", True, "ViT-L-14")


def test_any_crop_value_but_one_switches_cropping_off():
    assert parse_options(["crop=1"]).crop
    assert not parse_options(["crop=true"]).crop


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("treshold=0.5", "unknown GenEval option 'treshold=0.5'; expected key=value, keys: thres"),
        ("threshold", "unknown GenEval option 'threshold'"),
        ("threshold=high", "option threshold must be of type float, got 'high'"),
        ("threshold=nan", "option threshold must be a number, got nan"),
        ("max_objects=2.5", "option max_objects must be of type int, got '2.5'"),
        ("max_objects=-1", "option max_objects must be >= 0, got -1"),
        ("bgcolor=grue", "bgcolor must be a colour such as #999, or original, got 'grue'"),
    ],
)
def test_a_bad_option_is_named(pair, message):
    with pytest.raises(ValueError, match=message):
        parse_options([pair])


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ({"class": 3, "count": 1}, "class must be a name, got 3"),
        ({"class": "cup"}, "expected an object with class and count"),
        ({"class": "cup", "count": 1.0}, "count must be a whole number >= 0, got 1.0"),
        ({"class": "cup", "count": 0, "color": "red"}, "count must be a whole number >= 1, got 0"),
        ({"class": "cup", "count": 1, "position": ["above", 1]}, "earlier include clause"),
        ({"class": "cup", "count": 1, "position": "above"}, "earlier include clause"),
    ],
)
def test_a_bad_clause_is_named(clause, message):
    metadata = {"tag": "x", "prompt": "x", "include": [{"class": "dog", "count": 1}, clause]}
    with pytest.raises(ValueError, match=rf"line 7, include\[1\]: .*{message}"):
        parse_metadata(metadata, source="line 7")


def test_metadata_without_a_tag_is_named():
    with pytest.raises(ValueError, match="line 7: expected an object with tag and prompt"):
        parse_metadata({"prompt": "a cup"}, source="line 7")


def test_metadata_whose_clauses_are_no_list_is_named():
    with pytest.raises(ValueError, match="line 7: include must be a list of clauses, got None"):
        parse_metadata({"tag": "x", "prompt": "x", "include": None}, source="line 7")


@pytest.mark.parametrize(("box", "score"), [((0, 0, 1), 0.5), ((0, 0, 1, 1), float("nan"))])
def test_a_broken_detection_is_an_error(box, score):
    with pytest.raises(ValueError, match="box of 4 finite numbers and a finite score"):
        Detection(box, score)
