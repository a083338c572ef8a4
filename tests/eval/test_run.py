"""`python -m eval.run`: all entries checked first, results in one folder, the same however made."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from eval import benchmarks, genai_skills, mmvet_grader
from eval.file_hashes import sha256_of
from eval.genai_skills import TAGS
from eval.inception import Inception
from eval.report import read_report
from eval.run import app
from eval.suite import load_suite
from tests.eval import tiny_benchmark
from tests.eval.benchmark_files import write_json, write_lines, write_picture
from tests.eval.small_bundle import write_bundle
from tests.eval.tiny_extractor import TinyExtractor
from tests.mllm.tiny_pipeline import build_tiny_pipeline

ROOT = Path(__file__).resolve().parent.parent.parent
SUITES = ROOT / "eval" / "suites"
RESULT_FILES = ("results.json", "results.md", "results.png")

QUESTIONS = {"kind": "vqa", "benchmark": "tiny", "batch_size": 3, "options": ["parity=1"]}
DRAWINGS = {
    "kind": "geneval",
    "prompts": "drawn",
    "detector": "inspector",
    "per_task": 1,
    "num_images": 2,
    "sampling": {"batch_size": 5, "seed": 3},
}


class LengthScorer:
    """Scores by the prompt's length."""

    name = "length"

    def score(self, picture: Path, prompt: str) -> float:
        return len(prompt) / 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny"
    tiny_benchmark.write_data(folder, 11)
    return folder


@pytest.fixture(autouse=True)
def _tiny_is_a_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmarks.MODULES, "tiny", "tests.eval.tiny_benchmark")


def write_suite(path: Path, **entries: Any) -> Path:
    path.write_text(yaml.safe_dump({"entries": entries}, sort_keys=False))
    return path


def run(suite: Path, results: Path, *options: object, code: int = 0) -> str:
    """What the command says on both streams."""
    arguments = [suite, "-o", results, *options]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def outcome(results: Path) -> dict[str, bytes]:
    return {name: (results / name).read_bytes() for name in RESULT_FILES}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "small.yaml", questions=QUESTIONS, drawings=DRAWINGS)


# -- from start to end -----------------------------------------------------------------------------


def test_a_suite_runs_into_one_folder_and_goes_on(suite, model, data, tmp_path):
    results = tmp_path / "results"
    options = (f"data={data}", "--model", model)
    said = run(suite, results, *options)
    assert "1 of 2, questions: running" in said
    found = json.loads((results / "results.json").read_text())
    assert (found["suite"], found["is_complete"], found["problems"]) == ("small", True, [])
    settings = found["settings"]
    assert settings["entry drawings"]["sampling"]["seed"] == 3
    assert settings["model_fingerprint"] == build_tiny_pipeline().model.fingerprint
    assert {"unitok-mllm", "python", "torch", "numpy"} <= set(settings["versions"])
    assert found["intervals"]["seed"] == 0
    check_drawings(found["entries"]["drawings"], results / "drawings")
    questions = found["entries"]["questions"]
    assert questions["settings"]["parity"] == 1
    assert len(questions["settings"]["questions_sha256"]) == 64
    before = outcome(results)
    # A picture and the verdicts are lost: they come back, the rest stays.
    lost = results / "drawings" / "images" / "00003" / "samples" / "0001.png"
    lost.unlink()
    (results / "drawings" / "report.json").unlink()
    kept = (results / "questions" / "report.json").stat().st_mtime_ns
    said = run(suite, results, *options)
    assert "1 of 2, questions: finished" in said
    assert "drawing 5 of 12 pictures" in said  # a batch is drawn as a whole
    assert outcome(results) == before
    assert (results / "questions" / "report.json").stat().st_mtime_ns == kept


def check_drawings(found: dict[str, Any], folder: Path) -> None:
    """The entry of the drawn scenes says all that its own report says, but for the details."""
    report = read_report(folder / "report.json")
    assert found["benchmark"] == "geneval-drawn"
    assert found["headline"]["metric"] == "overall"
    assert found["headline"]["value"] == report.metrics["overall"]
    interval = found["headline"]["interval"]
    assert interval["low"] <= report.metrics["overall"] <= interval["high"]
    assert found["settings"]["detector"] == "inspector"
    assert len(found["settings"]["prompts"]["sha256"]) == 64
    assert found["settings"]["generation"]["seed"] == 3
    assert [(item["item"], item["score"]) for item in found["verdicts"]] == [
        (item.item_id, item.score) for item in report.items
    ]
    assert len(found["verdicts"]) == 12


def test_a_folder_of_another_model_or_suite_is_refused(suite, model, data, tmp_path):
    results = tmp_path / "results"
    first = write_suite(tmp_path / "small2.yaml", questions=QUESTIONS)
    options = (f"data={data}", "--model", model)
    run(first, results, *options)
    said = run(first, results, "entries.questions.batch_size=4", *options, code=1)
    assert "was begun with entry questions" in said
    said = run(suite, results, *options, code=1)
    assert "was begun with suite small2, got small" in said


def test_a_limit_is_marked_everywhere(suite, model, data, tmp_path):
    results = tmp_path / "results"
    said = run(suite, results, f"data={data}", "--model", model, "--limit", 2)
    found = json.loads((results / "results.json").read_text())
    assert found["is_complete"] is False
    assert not any(entry["is_complete"] for entry in found["entries"].values())
    drawings = found["entries"]["drawings"]
    assert drawings["benchmark"] == "geneval-2-of-6-drawn-partial"
    assert {item["group"] for item in drawings["verdicts"]} == {"single_object", "two_object"}
    text = (results / "results.md").read_text()
    assert "| drawings (PARTIAL) |" in text
    assert "| questions (PARTIAL) |" in text
    assert said.count("INCOMPLETE: drawings ran with a limit of 2") == 2
    assert "only the first 2 of 11 questions were asked" in text


# -- what is missing or wrong ----------------------------------------------------------------------


def test_all_that_is_missing_is_named_before_anything_runs(suite, model, data, tmp_path):
    results = tmp_path / "results"
    missing = {
        "prompts": {**DRAWINGS, "prompts": str(tmp_path / "no.jsonl")},
        "detector": {**DRAWINGS, "detector": str(tmp_path / "no_detector")},
        "gqa": {"kind": "vqa", "benchmark": "gqa"},
    }
    suite = write_suite(tmp_path / "some.yaml", questions=QUESTIONS, **missing)
    options = (f"data={data}", "--model", model)
    said = " ".join(run(suite, results, *options, code=1).split())
    assert "prompts: there is no prompt file" in said
    assert "download GenEval's evaluation_metadata.jsonl" in said
    assert "detector: " in said
    assert "convert-detector" in said
    assert f"gqa: {data}/gqa/llava_gqa_testdev_balanced.jsonl does not exist; get it from" in said
    assert "prompts, detector, gqa cannot run yet, nothing was run" in said
    assert not results.exists()
    said = run(suite, results, *options, "--skip-missing")
    found = json.loads((results / "results.json").read_text())
    assert found["is_complete"] is False
    assert set(found["missing"]) == set(missing)
    assert set(found["entries"]) == {"questions"}
    assert "there is no prompt file" in found["missing"]["prompts"]
    assert "INCOMPLETE: gqa was left out" in (results / "results.md").read_text()


def test_files_that_only_the_scorer_reads_are_missed_first(model, tmp_path):
    folder = tmp_path / "data" / "gqa"
    write_picture(folder / "data" / "images" / "1.jpg")
    question = {"question_id": "1", "text": "q?", "image": "1.jpg"}
    write_lines(folder / "llava_gqa_testdev_balanced.jsonl", [question])
    suite = write_suite(tmp_path / "gqa.yaml", gqa={"kind": "vqa", "benchmark": "gqa"})
    said = run(suite, tmp_path / "r", f"data={tmp_path / 'data'}", "--model", model, code=1)
    assert "testdev_balanced_questions.json does not exist" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "entries.questions.limmit=3",
            "entries.questions: unknown key 'limmit'; expected one of benchmark",
        ),
        (
            "entries.drawings.sampling.top=3",
            "sampling: unknown key 'top' (did you mean 'top_p'?); expected one of seed",
        ),
        ("entris.questions=3", "unknown key 'entris' (did you mean 'entries'?)"),
        ("entries.questions.batch_size=-1", "batch_size: Input should be greater than 0"),
        ("entries.drawings.num_images=0", "num_images: Input should be greater than 0"),
        ("entries.questions.kind=quiz", "entries.questions: Input tag 'quiz'"),
        ("entries.questions.benchmark=quiz", "questions: no benchmark is called 'quiz'"),
        ("entries.questions.options=[odd=1]", "questions: 'odd=1' is no scoring option"),
        ("entries={a/b: {kind: vqa, benchmark: scenes}}", "'a/b' is no name for a folder"),
        ("entries={}", "a suite needs at least one entry"),
    ],
)
def test_a_wrong_setting_is_named_and_never_skipped(suite, data, tmp_path, change, message):
    options = (f"data={data}", change, "--skip-missing")
    assert message in " ".join(run(suite, tmp_path / "r", *options, code=1).split())
    assert not (tmp_path / "r").exists()


def test_a_damaged_file_is_refused_before_anything_runs(model, tmp_path):
    folder = tmp_path / "data"
    write_bundle(folder)
    (folder / "seed_bench" / "SEED-Bench.json").write_text('{"questions": [')
    entries = {name: {"kind": "vqa", "benchmark": name} for name in ("pope", "seed")}
    suite = write_suite(tmp_path / "two.yaml", **entries)
    options = (f"data={folder}", "--model", model, "--skip-missing")
    said = " ".join(run(suite, tmp_path / "r", *options, code=1).split())
    assert "seed: " in said
    assert "SEED-Bench.json is no JSON file" in said
    assert not (tmp_path / "r").exists()


def test_an_entry_that_fails_leaves_the_others_and_is_made_up_for(
    model, mmvet_data, tmp_path, monkeypatch
):
    vet = {"kind": "mmvet", "grader_url": "http://judge/v1", "grader": "judge"}
    suite = write_suite(tmp_path / "two.yaml", vet=vet, drawings=DRAWINGS)
    results = tmp_path / "results"
    options = (f"data={mmvet_data}", "--model", model)

    def refuse(self, message, *, temperature):
        raise RuntimeError("the grader wants\na key")

    monkeypatch.setattr(mmvet_grader.EndpointGrader, "ask", refuse)
    said = run(suite, results, *options, code=1)
    assert "INCOMPLETE: vet failed: the grader wants a key" in said
    assert "1 of 2 entries failed (vet); start again" in " ".join(said.split())
    found = json.loads((results / "results.json").read_text())
    assert (found["is_complete"], set(found["entries"])) == (False, {"drawings"})
    assert found["failed"] == {"vet": "the grader wants a key"}
    assert (
        "**INCOMPLETE: vet failed: the grader wants a key**" in (results / "results.md").read_text()
    )
    monkeypatch.setattr(
        mmvet_grader.EndpointGrader,
        "ask",
        lambda self, message, *, temperature: mmvet_grader.Reply("0.5", "judge-1"),
    )
    assert "2 of 2, drawings: finished" in run(suite, results, *options)
    found = json.loads((results / "results.json").read_text())
    assert (found["is_complete"], found["failed"]) == (True, {})
    assert found["entries"]["vet"]["headline"]["value"] == 50.0


def test_a_submission_that_fails_costs_no_score_and_is_written_later(
    model, data, tmp_path, monkeypatch
):
    suite = write_suite(tmp_path / "one.yaml", questions=QUESTIONS)
    results = tmp_path / "results"
    options = (f"data={data}", "--model", model)

    def refuse(answers, data, path):
        raise RuntimeError("no program writes this")

    with monkeypatch.context() as patch:
        patch.setattr(tiny_benchmark, "write_submission", refuse)
        run(suite, results, *options, code=1)
    found = json.loads((results / "results.json").read_text())
    assert found["failed"] == {"questions": "no program writes this"}
    score = found["entries"]["questions"]["headline"]["value"]
    assert score == read_report(results / "questions" / "report.json").headline[1]
    assert not (results / "questions" / "upload.json").exists()
    assert "1 of 1, questions: running" in run(suite, results, *options)
    assert (results / "questions" / "upload.json").exists()
    found = json.loads((results / "results.json").read_text())
    assert (found["failed"], found["entries"]["questions"]["headline"]["value"]) == ({}, score)


@pytest.mark.parametrize("text", ["", "[]", '{"benchmark": "tiny"}', '{"counts": 3'])
def test_an_incomplete_report_is_named(suite, data, tmp_path, text):
    folder = tmp_path / "results" / "questions"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(text)
    said = " ".join(run(suite, tmp_path / "results", f"data={data}", code=1).split())
    assert f"error: {folder}/report.json" in said
    assert "delete it" in said


def test_one_of_several_processes_is_refused(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start one, with --num-processes 2" in run(suite, tmp_path / "r", code=1)


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_suites_of_this_checkout_fit(path):
    suite = load_suite(path)
    names = {entry.benchmark for entry in suite.entries.values() if hasattr(entry, "benchmark")}
    assert names <= set(benchmarks.benchmark_names())


def test_the_official_suite_has_every_benchmark_but_the_drawn_scenes():
    entries = load_suite(SUITES / "official.yaml").entries.values()
    names = {entry.benchmark for entry in entries if hasattr(entry, "benchmark")}
    assert names == {name for name in benchmarks.MODULES if name not in ("scenes", "tiny")}
    kinds = [entry.kind for entry in entries if not hasattr(entry, "benchmark")]
    assert kinds == ["geneval", "genai_bench", "mjhq"]


# -- pictures of prompts ---------------------------------------------------------------------------


@pytest.fixture
def picture_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GenAI-Bench and MJHQ of four prompts, with a scorer and an extractor of test size."""
    prompts = ["a star", "a red circle", "two dots", "three blue dots"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    skills = {tag: [1, 2] for tag in TAGS} | {"advanced": [2, 3, 4]}
    (tmp_path / "skills.json").write_text(json.dumps(skills))
    for name, file in (("PROMPTS_SHA256", "prompts.txt"), ("SKILLS_SHA256", "skills.json")):
        monkeypatch.setattr(genai_skills, name, sha256_of(tmp_path / file))
    metadata = {f"p{n}": {"category": "art", "prompt": text} for n, text in enumerate(prompts)}
    (tmp_path / "meta_data.json").write_text(json.dumps(metadata))
    (tmp_path / "references" / "art").mkdir(parents=True)
    for number in range(len(prompts)):
        picture = Image.new("RGB", (32, 32), (60 * number, 90, 200 - 40 * number))
        picture.save(tmp_path / "references" / "art" / f"p{number}.png")
    extractor = classmethod(lambda cls, path, *, device: TinyExtractor())
    monkeypatch.setattr(Inception, "from_file", extractor)
    return write_suite(
        tmp_path / "pictures.yaml",
        genai={
            "kind": "genai_bench",
            "prompts": str(tmp_path / "prompts.txt"),
            "skills": str(tmp_path / "skills.json"),
            "scorer": "tests.eval.test_run:LengthScorer",
        },
        mjhq={
            "kind": "mjhq",
            "metadata": str(tmp_path / "meta_data.json"),
            "references": str(tmp_path / "references"),
        },
    )


def test_benchmarks_with_a_picture_of_each_prompt_run_too(picture_suite, model, tmp_path):
    results = tmp_path / "results"
    run(picture_suite, results, "--model", model)
    found = json.loads((results / "results.json").read_text())
    assert found["is_complete"] is True
    genai, mjhq = found["entries"]["genai"], found["entries"]["mjhq"]
    assert genai["headline"]["value"] == pytest.approx((0.12 + 0.08 + 0.15) / 3)
    assert genai["headline"]["interval"]["low"] >= 0.0799
    assert genai["settings"]["scorer"] == "length"
    assert mjhq["headline"]["metric"] == "fid"
    assert "no mean" in mjhq["headline"]["why_no_interval"]
    assert mjhq["settings"]["extractor_sha256"] == TinyExtractor.sha256
    table = (results / "results.md").read_text()
    assert "| genai | advanced | 0.1167" in table
    assert "published: UniTok, arXiv 2502.20321v3, Table 5" in table


def test_a_limit_draws_the_first_prompts_only(picture_suite, model, tmp_path):
    results = tmp_path / "results"
    run(picture_suite, results, "--model", model, "--limit", 2)
    pictures = [path.relative_to(results).as_posix() for path in results.rglob("*.jpg")]
    assert sorted(pictures) == [
        *("genai/images/00001.jpg", "genai/images/00002.jpg"),
        *("mjhq/images/art/p0.jpg", "mjhq/images/art/p1.jpg"),
    ]
    found = json.loads((results / "results.json").read_text())
    assert not any(entry["is_complete"] for entry in found["entries"].values())


def test_references_that_are_not_all_there_are_missing_data(picture_suite, model, tmp_path):
    (tmp_path / "references" / "art" / "p2.png").unlink()
    said = run(picture_suite, tmp_path / "r", "--model", model, code=1)
    assert "lacks 1 pictures (art/p2)" in said
    assert "mjhq cannot run yet, nothing was run" in said


# -- grades ----------------------------------------------------------------------------------------


@pytest.fixture
def mmvet_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two questions of MM-Vet, and a grader's table that is taken for the official one."""
    folder = tmp_path / "data" / "mm-vet"
    write_picture(folder / "images" / "v1_0.jpg")
    questions = [{"question_id": n, "text": f"q{n}?", "image": "v1_0.jpg"} for n in range(2)]
    write_lines(folder / "llava-mm-vet.jsonl", questions)
    record = {"question": "q?", "answer": "a", "capability": ["ocr"], "imagename": "v1_0.jpg"}
    write_json(folder / "mm-vet.json", {f"v1_{number}": record for number in range(2)})
    (folder / "mm-vet_evaluator.py").write_text('prompt = "Compare."\n')
    sha256 = hashlib.sha256(b"Compare.").hexdigest()
    monkeypatch.setattr(mmvet_grader, "TABLE_SHA256", sha256)
    return tmp_path / "data"


def test_mmvet_is_graded_by_its_endpoint_and_named_with_its_grader(
    model, mmvet_data, tmp_path, monkeypatch
):
    grades = iter(("0.2", "0.6"))
    monkeypatch.setattr(
        mmvet_grader.EndpointGrader,
        "ask",
        lambda self, message, *, temperature: mmvet_grader.Reply(next(grades), "judge-1"),
    )
    suite = write_suite(tmp_path / "vet.yaml", vet={"kind": "mmvet", "grader": "judge"})
    options = (f"data={mmvet_data}", "--model", model)
    said = run(suite, tmp_path / "ungraded", *options)
    assert "| vet | total | not scored |" in said
    run(suite, tmp_path / "graded", "entries.vet.grader_url=http://judge/v1", *options)
    found = json.loads((tmp_path / "graded" / "results.json").read_text())["entries"]["vet"]
    assert found["headline"]["value"] == 40.0
    assert found["settings"]["grader"] == "judge"
    assert "vet: grader judge" in (tmp_path / "graded" / "results.md").read_text()
    assert (tmp_path / "graded" / "vet" / "grades.json").is_file()


def test_what_a_grader_needs_is_missed_first(model, mmvet_data, tmp_path):
    (mmvet_data / "mm-vet" / "mm-vet_evaluator.py").unlink()
    entry = {"kind": "mmvet", "grader_url": "http://judge/v1"}
    suite = write_suite(tmp_path / "vet.yaml", vet=entry)
    said = run(suite, tmp_path / "r", f"data={mmvet_data}", "--model", model, code=1)
    assert "mm-vet_evaluator.py does not exist; grading needs the examples in it" in said


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(tmp_path):
    nano = SUITES / "nano.yaml"
    options = ("entries.drawings.per_task=1", "entries.questions.batch_size=5", "--limit", 24)
    run(nano, tmp_path / "one", *options)
    run(nano, tmp_path / "two", *options, "--num-processes", 2)
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    found = json.loads((tmp_path / "one" / "results.json").read_text())
    assert found["entries"]["drawings"]["headline"]["value"] > 0
    assert len(list((tmp_path / "two").rglob("*.png"))) == 24 + 1


@pytest.mark.slow
def test_two_processes_draw_the_pictures_of_one(picture_suite, model, tmp_path, monkeypatch):
    sampling = ("entries.genai.sampling={batch_size: 1}", "entries.mjhq.sampling={batch_size: 1}")
    found = []
    for number in (1, 2):
        folder = tmp_path / f"by {number}"
        folder.mkdir()
        monkeypatch.chdir(folder)  # a FID names the folder of its pictures
        options = (*sampling, "--model", model, "--num-processes", number)
        run(picture_suite, Path("results"), *options)
        found.append(outcome(folder / "results"))
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_killed_at_any_moment_a_suite_ends_with_the_same_scores(model, tmp_path, num_processes):
    entries = {"questions": {"kind": "vqa", "benchmark": "scenes", "batch_size": 2}}
    drawings = {**DRAWINGS, "num_images": 4, "sampling": {"batch_size": 2}}
    suite = write_suite(tmp_path / "small.yaml", **entries, drawings=drawings)
    arguments = [suite, "--model", model, "--limit", 12, "-o"]
    run(suite, tmp_path / "whole", *arguments[1:-1])
    command = [sys.executable, "-m", "eval.run", *arguments, tmp_path / "killed"]
    command += ["--num-processes", num_processes]
    chance = random.Random(num_processes)
    for _ in range(4):
        kill_after(chance.randint(1, 12), list(map(str, command)), tmp_path / "killed")
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT, capture_output=True)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def kill_after(num_changes: int, command: list[str], folder: Path) -> None:
    """Start a command and kill it with all its processes once so many files have come or grown."""
    before = None
    with subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and num_changes > 0:
            time.sleep(0.01)
            now = sorted((str(path), size(path)) for path in folder.rglob("*"))
            num_changes -= before is not None and now != before
            before = now
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def size(path: Path) -> int:
    """Of a file that may just be gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
