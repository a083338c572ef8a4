"""A data folder with the files of every understanding benchmark, two or three questions each."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from eval.mme_results import ALL_SUBTASKS
from eval.pope import CATEGORIES
from tests.eval.benchmark_files import write_picture

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
RELEASE = "MME/MME_Benchmark_release_version"
VAL_PICTURES = ("COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg")


def write_bundle(folder: Path) -> dict[str, list[Path]]:
    """Write everything; the official files of each benchmark, which somebody may damage."""
    paths = {}
    for benchmark, files in bundle_files().items():
        paths[benchmark] = [folder / name for name in files]
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    for name in _pictures():
        write_picture(folder / name)
    return paths


def bundle_files() -> dict[str, dict[str, str]]:
    """The text of every file by benchmark and place."""
    return {
        "vqav2": _vqav2(),
        "gqa": _gqa(),
        "textvqa": _textvqa(),
        "pope": _pope(),
        "mme": _mme(),
        "mmvet": _mmvet(),
        "mmbench": {"mmbench/mmbench_dev_20230712.tsv": _mmbench_table()},
        "scienceqa": _scienceqa(),
        "seed": _seed(),
    }


def _pictures() -> list[str]:
    return [
        *(f"vqav2/val2014/{name}" for name in VAL_PICTURES),
        "gqa/data/images/1.jpg",
        "textvqa/train_images/1.jpg",
        "pope/val2014/1.jpg",
        *(f"{RELEASE}/{subtask}/1.jpg" for subtask in ALL_SUBTASKS),
        "mm-vet/images/1.jpg",
        "scienceqa/images/test/2/image.png",
        "seed_bench/SEED-Bench-image/1.jpg",
    ]


def _lines(records: list[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def _asked(question_id: int | str, text: str, image: str, **more: str) -> dict[str, Any]:
    return {"question_id": question_id, "text": text, "image": image, **more}


def _vqav2() -> dict[str, str]:
    answers = [{"answer": text} for text in ["a"] * 5 + ["b"] * 5]
    questions = [{"question_id": n, "image_id": n, "question": f"q{n}?"} for n in (1, 2)]
    kinds = {"answer_type": "other", "question_type": "what", "answers": answers}
    annotations = [{"question_id": n, **kinds} for n in (1, 2)]
    return {
        "vqav2/v2_OpenEnded_mscoco_val2014_questions.json": json.dumps({"questions": questions}),
        "vqav2/v2_mscoco_val2014_annotations.json": json.dumps({"annotations": annotations}),
    }


def _gqa() -> dict[str, str]:
    question = {
        "question": "q?",
        "answer": "red",
        "isBalanced": True,
        "types": {"structural": "query", "semantic": "attr", "detailed": "color"},
        "groups": {"global": "color"},
        "semantic": [{"operation": "select", "argument": "a"}],
    }
    return {
        "gqa/llava_gqa_testdev_balanced.jsonl": _lines(
            [_asked(str(n), f"q?{SHORT}", "1.jpg") for n in (1, 2)]
        ),
        "gqa/data/testdev_balanced_questions.json": json.dumps({"1": question, "2": question}),
    }


def _textvqa() -> dict[str, str]:
    annotation = {"image_id": "1", "question": "Q1?", "answers": ["a"] * 10}
    prompt = f"Q1?\nReference OCR token: {SHORT}"
    return {
        "textvqa/llava_textvqa_val_v051_ocr.jsonl": _lines([_asked("1", prompt, "1.jpg")]),
        "textvqa/TextVQA_0.5.1_val.json": json.dumps({"data": [annotation]}),
    }


def _pope() -> dict[str, str]:
    text = "Is there a dog in the image?"
    questions = [
        _asked(2 * place + n, f"{n} {text}{SHORT}", "1.jpg", category=category)
        for place, category in enumerate(CATEGORIES)
        for n in (1, 2)
    ]
    labels = [_asked(n, f"{n} {text}", "1.jpg", label="yes") for n in (1, 2)]
    return {
        "pope/llava_pope_test.jsonl": _lines(questions),
        **{f"pope/coco/coco_pope_{category}.json": _lines(labels) for category in CATEGORIES},
    }


def _mme() -> dict[str, str]:
    questions = [
        _asked(f"{subtask}/1.jpg", f"q{n}?{SHORT}", f"{subtask}/1.jpg", category=subtask)
        for subtask in ALL_SUBTASKS
        for n in (1, 2)
    ]
    truth = "q1? Please answer yes or no.\tYes\nq2? Please answer yes or no.\tNo\n"
    return {
        "MME/llava_mme.jsonl": _lines(questions),
        **{f"{RELEASE}/{subtask}/1.txt": truth for subtask in ALL_SUBTASKS},
    }


def _mmvet() -> dict[str, str]:
    record = {"question": "q?", "answer": "a", "capability": ["ocr"]}
    return {
        "mm-vet/llava-mm-vet.jsonl": _lines([_asked(n, f"q{n}?", "1.jpg") for n in range(2)]),
        "mm-vet/mm-vet.json": json.dumps({f"v1_{number}": record for number in range(2)}),
    }


def _mmbench_table() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    rows = [
        ("index", "question", "hint", "A", "B", "answer", "category", "image"),
        ("0", "which?", "look", "x", "y", "A", "ocr", picture),
        ("1000000", "which?", "look", "y", "x", "B", "ocr", "0"),
    ]
    return "".join("\t".join(row) + "\n" for row in rows)


def _scienceqa() -> dict[str, str]:
    turns = [{"value": f"<image>\nwhich?\nA. x\nB. y{LETTER}"}]
    problems = {str(n): {"choices": ["x", "y"], "answer": 0} for n in (1, 2)}
    questions = [
        {"id": "1", "conversations": turns},
        {"id": "2", "image": "2/image.png", "conversations": turns},
    ]
    return {
        "scienceqa/llava_test_CQM-A.json": json.dumps(questions),
        "scienceqa/problems.json": json.dumps(problems),
        "scienceqa/pid_splits.json": json.dumps({"test": ["1", "2"]}),
    }


def _seed() -> dict[str, str]:
    questions = [
        {"question_id": n, "question_type_id": 1, "data_type": "image", "answer": "A"}
        for n in ("1", "2")
    ]
    annotation = {"questions": questions, "question_type": {"Scene": 1}}
    picture = "SEED-Bench-image/1.jpg"
    return {
        "seed_bench/llava-seed-bench.jsonl": _lines(
            [_asked(n, f"which?{LETTER}", picture) for n in (1, 2)]
        ),
        "seed_bench/SEED-Bench.json": json.dumps(annotation),
    }
