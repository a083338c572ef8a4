"""The classes that GenEval looks for."""

import hashlib

from eval.detector import CLASS_NAMES, coco_names


def test_the_class_list_is_the_official_one():
    assert len(set(CLASS_NAMES)) == 80
    lines = "".join(f"{name}\n" for name in CLASS_NAMES)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert digest == "608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd"


def test_three_classes_have_other_names_in_coco():
    renamed = {
        ours: theirs
        for ours, theirs in zip(CLASS_NAMES, coco_names(), strict=True)
        if ours != theirs
    }
    assert renamed == {
        "computer mouse": "mouse",
        "tv remote": "remote",
        "computer keyboard": "keyboard",
    }
