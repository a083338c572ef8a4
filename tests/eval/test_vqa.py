"""A benchmark from its questions to its report: whole, in parts, killed, and refused."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from eval import benchmarks
from eval.answer_files import read_answers
from eval.answer_parts import open_part, read_parts
from eval.asking import AskConfig, Asking, hash_questions
from eval.report import read_report
from eval.vqa import app
from mllm.pipeline import Pipeline
from mllm.share import Share
from tests.eval import tiny_benchmark
from tests.mllm.tiny_pipeline import build_tiny_pipeline

NUM_QUESTIONS = 23


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build_tiny_pipeline()


@pytest.fixture(scope="module")
def model(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny"
    tiny_benchmark.write_data(folder, NUM_QUESTIONS)
    return folder


@pytest.fixture(autouse=True)
def _tiny_is_a_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmarks.MODULES, "tiny", "tests.eval.tiny_benchmark")


def run(results: Path, *options: object, code: int = 0) -> str:
    """What the command says on both streams."""
    result = CliRunner().invoke(app, ["-o", str(results), *map(str, options)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def command(model: Path, data: Path) -> tuple[object, ...]:
    return ("--benchmark", "tiny", "--data", data, "--model", model, "--batch-size", 3)


@pytest.fixture(scope="module")
def finished(command: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an undisturbed run."""
    results = tmp_path_factory.mktemp("results") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(benchmarks.MODULES, "tiny", "tests.eval.tiny_benchmark")
        run(results, *command)
    return results


def outcome(results: Path) -> dict[str, bytes]:
    """All files but the parts."""
    return {path.name: path.read_bytes() for path in results.iterdir() if path.is_file()}


# -- answers ---------------------------------------------------------------------------------------


def test_answers_are_those_of_single_chats_in_question_order(finished, data, pipeline):
    questions = tiny_benchmark.load_questions(data)
    answers = read_answers(finished / "answers.jsonl")
    assert [answer.question_id for answer in answers] == [each.question_id for each in questions]
    assert [answer.prompt for answer in answers] == [each.text for each in questions]
    assert [answer.text for answer in answers] == [
        pipeline.chat(each.prompt, each.image, max_new_tokens=6).text for each in questions
    ]
    assert len({answer.text for answer in answers}) > 5
    assert len({answer.answer_id for answer in answers}) == NUM_QUESTIONS
    assert {answer.model_id for answer in answers} == {"tiny"}
    first = json.loads((finished / "answers.jsonl").read_text().splitlines()[0])
    keys = {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    assert set(first) == keys


def test_the_report_holds_what_makes_the_run_repeatable(finished, pipeline, data):
    report = read_report(finished / "report.json")
    settings = report.settings
    assert settings["is_complete"] is True
    assert settings["limit"] is None
    assert settings["model_fingerprint"] == pipeline.fingerprints()["model_fingerprint"]
    assert settings["tokenizer_fingerprint"] == pipeline.tokenizer.fingerprint
    assert settings["template"] == "plain"
    assert settings["image_recipe"] == "chat"
    assert settings["batch_size"] == 3
    assert settings["questions_sha256"] == hash_questions(tiny_benchmark.load_questions(data), data)
    assert {"unitok-mllm", "torch", "transformers"} <= set(settings["versions"])
    assert settings["parity"] == 0
    assert report.notes == ()


def test_a_submission_is_written_where_the_benchmark_has_one(finished):
    texts = [answer.text for answer in read_answers(finished / "answers.jsonl")]
    assert json.loads((finished / "upload.json").read_text()) == [0, *texts]


def test_options_reach_the_scorer_and_the_submission(command, finished, tmp_path):
    even = read_report(finished / "report.json").headline[1]
    said = run(tmp_path / "odd", *command, "--option", "parity=1")
    report = read_report(tmp_path / "odd" / "report.json")
    assert report.headline[1] == pytest.approx(100 - even)
    assert report.settings["parity"] == 1
    assert f"{report.headline[1]:.2f}" in said
    assert json.loads((tmp_path / "odd" / "upload.json").read_text())[0] == 1


# -- going on --------------------------------------------------------------------------------------


def test_two_processes_give_the_files_of_one(command, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    said = run(tmp_path / "two", *command)
    assert "this process is done; others have 12 questions to ask" in said
    monkeypatch.setenv("RANK", "0")
    run(tmp_path / "two", *command)
    assert outcome(tmp_path / "two") == outcome(finished)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_shares_are_consecutive_batches_and_cover_all_questions_once(data, tmp_path, count):
    config = AskConfig("tiny", tmp_path, data=data, batch_size=3)
    shares = [Asking(config)._batches(Share(index, count)) for index in range(count)]
    numbers = [number for batches in shares for batch in batches for number in batch]
    assert numbers == list(range(NUM_QUESTIONS))
    assert {len(batch) for batches in shares for batch in batches[:-1]} <= {3}


def test_only_questions_without_an_answer_are_asked(command, finished, tmp_path, monkeypatch):
    results = tmp_path / "half"
    run(results, *command)
    [part] = (results / "parts").iterdir()
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join([*lines[:4], *lines[5:20]]) + lines[20][:-4])  # half a line at last
    (results / "answers.jsonl").unlink()
    asked: list[int] = []
    answer = Asking._prompts
    monkeypatch.setattr(
        Asking,
        "_prompts",
        lambda self, pipeline, batch: asked.extend(batch) or answer(self, pipeline, batch),
    )
    run(results, *command)
    # Checked first, then asked, as whole batches.
    assert asked == [3, 4, 5, 18, 19, 20, 21, 22] * 2
    assert outcome(results) == outcome(finished)
    new = next(each for each in (results / "parts").iterdir() if each != part)
    assert [json.loads(line)["number"] for line in new.read_text().splitlines()] == [4, 20, 21, 22]


def slowly_ask(model: Path, config: AskConfig) -> None:
    Asking(config).ask(
        Pipeline.from_pretrained(model), Share(), count_done=lambda number: time.sleep(0.02)
    )


def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(
    command, finished, model, data, tmp_path
):
    config = AskConfig("tiny", tmp_path / "killed", data=data, model=str(model), batch_size=3)
    left = []
    for num_answers in (3, 9, 15):
        process = multiprocessing.get_context("fork").Process(
            target=slowly_ask, args=(model, config)
        )
        process.start()
        while len(read_parts(config.results / "parts")) < num_answers and process.is_alive():
            time.sleep(0.001)
        process.kill()
        process.join()
        left.append(len(read_parts(config.results / "parts")))
    assert 0 < left[0] < left[1] < left[2] < NUM_QUESTIONS
    assert not (config.results / "answers.jsonl").exists()
    run(config.results, *command)
    assert outcome(config.results) == outcome(finished)


@pytest.mark.slow
def test_a_command_may_start_its_own_processes(model, tmp_path):
    command = ("--benchmark", "scenes", "--model", model, "--limit", 30, "--batch-size", 4)
    run(tmp_path / "one", *command)
    run(tmp_path / "two", *command, "--num-processes", 2)
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    assert len(list((tmp_path / "two" / "parts").iterdir())) == 2


@pytest.mark.slow
def test_an_error_in_a_started_process_ends_the_command(tmp_path):
    command = ("--benchmark", "scenes", "--model", "no-such-model", "--num-processes", 2)
    said = run(tmp_path / "two", *command, code=1)
    assert "error: no model called 'no-such-model'" in said


# -- a first look ----------------------------------------------------------------------------------


def test_a_limited_run_is_never_called_complete(model, tmp_path):
    said = run(tmp_path / "few", "--benchmark", "scenes", "--model", model, "--limit", 5)
    assert "INCOMPLETE: only the first 5 of 1020 questions were asked" in said
    assert "the scores are about those alone" in " ".join(said.split())
    report = read_report(tmp_path / "few" / "report.json")
    assert report.settings["is_complete"] is False
    assert report.settings["limit"] == 5
    assert report.settings["answered_only"] is True
    assert (report.counts.num_items, report.counts.num_missing) == (5, 1015)
    right = sum(item.score for item in report.items)
    assert report.headline == ("accuracy", 100 * right / 5)
    assert "INCOMPLETE" in report.notes[0]
    assert len(read_answers(tmp_path / "few" / "answers.jsonl")) == 5


def test_where_answers_are_missing_a_scorer_that_needs_them_is_not_asked_to_guess(
    command, tmp_path
):
    said = run(tmp_path / "few", *command, "--limit", 4)
    report = read_report(tmp_path / "few" / "report.json")
    assert report.headline == ("score", None)
    assert report.notes[1] == "not scored, since answers are missing: question 2 has no answer"
    assert "not scored" in said
    assert not (tmp_path / "few" / "upload.json").exists()


def test_a_limit_beyond_the_last_question_is_none(command, finished, tmp_path):
    run(tmp_path / "all", *command, "--limit", 1000)
    assert outcome(tmp_path / "all") == outcome(finished)


# -- refusals --------------------------------------------------------------------------------------


@pytest.fixture
def begun(finished: Path) -> Iterator[Path]:
    before = outcome(finished)
    yield finished
    assert outcome(finished) == before


def test_a_folder_of_other_settings_is_refused(begun, command):
    said = run(begun, *command, "--batch-size", 4, code=1)
    assert "was begun with batch_size 3, got 4; give the same settings to go on" in said
    said = run(begun, *command, "--limit", 4, code=1)
    assert "was begun with limit None, got 4; give the same settings" in said


def test_a_folder_of_another_model_is_refused(begun, command, tmp_path):
    other = build_tiny_pipeline()
    other.model.lm_head.weight.data += 1
    other.save_pretrained(tmp_path / "tiny")
    said = run(begun, *command, "--model", tmp_path / "tiny", code=1)
    assert "was begun with model_fingerprint" in said


def test_a_folder_of_other_questions_is_refused(begun, command, tmp_path):
    tiny_benchmark.write_data(tmp_path / "data", NUM_QUESTIONS)
    with (tmp_path / "data" / "questions.jsonl").open("a") as file:
        file.write('{"id": 99, "text": "and?"}\n')
    said = run(begun, *command, "--data", tmp_path / "data", code=1)
    assert "was begun with questions_sha256" in said


def test_the_questions_of_a_moved_data_folder_are_the_same(data, tmp_path):
    tiny_benchmark.write_data(tmp_path / "moved", NUM_QUESTIONS)
    moved = tiny_benchmark.load_questions(tmp_path / "moved")
    questions = tiny_benchmark.load_questions(data)
    assert hash_questions(moved, tmp_path / "moved") == hash_questions(questions, data)
    assert hash_questions(moved[1:], tmp_path / "moved") != hash_questions(questions, data)


def test_a_folder_with_other_files_is_refused(command, tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    said = run(tmp_path, *command, code=1)
    assert f"{tmp_path} holds files but no settings.json" in said
    assert "name a new folder" in said
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_questions_too_long_for_the_model_are_named_before_any_is_asked(model, tmp_path):
    data = tmp_path / "data"
    tiny_benchmark.write_data(data, 8)
    with (data / "questions.jsonl").open("a") as file:
        file.write(json.dumps({"id": "long one", "text": "star " * 200}) + "\n")
    said = run(tmp_path / "out", "--benchmark", "tiny", "--data", data, "--model", model, code=1)
    assert "question long one of tiny: the prompt is" in said
    assert not (tmp_path / "out" / "parts").exists()


def test_missing_pictures_and_data_are_named(command, data, tmp_path):
    tiny_benchmark.write_data(tmp_path / "data", 3)
    (tmp_path / "data" / "1.png").unlink()
    said = run(tmp_path / "out", *command, "--data", tmp_path / "data", code=1)
    assert "1.png" in said
    said = run(tmp_path / "out", *command, "--data", tmp_path / "nowhere", code=1)
    assert f"no folder {tmp_path / 'nowhere'}; name the one with the data of tiny" in said
    said = run(tmp_path / "out", "--benchmark", "tiny", code=1)
    assert "tiny needs its question files and pictures; name their folder (--data)" in said


def test_unknown_benchmarks_and_options_are_refused_with_the_choices(command, tmp_path):
    said = run(tmp_path / "out", "--benchmark", "okvqa", code=1)
    assert "no benchmark is called 'okvqa'; choose one of" in said
    assert "scenes" in said
    said = run(tmp_path / "out", *command, "--option", "mood=good", code=1)
    assert "'mood=good' is no scoring option of tiny; it has parity=..." in said
    said = run(tmp_path / "out", "--benchmark", "scenes", "--option", "parity", code=1)
    assert "'parity' is no scoring option of scenes; it has answered_only=..." in said


def test_one_of_several_processes_starts_no_others(command, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    said = run(tmp_path / "out", *command, "--num-processes", 2, code=1)
    assert "this is one of 2 processes already; leave --num-processes out" in said


# -- registry and parts ----------------------------------------------------------------------------


def test_a_benchmark_whose_module_is_missing_leaves_the_others(monkeypatch):
    monkeypatch.setitem(benchmarks.MODULES, "gone", "eval.no_such_module")
    names = benchmarks.benchmark_names()
    assert "gone" not in names
    assert {"scenes", "tiny"} <= set(names)
    with pytest.raises(ValueError, match="no benchmark is called 'gone'"):
        benchmarks.load_benchmark("gone")


@pytest.mark.parametrize("name", benchmarks.benchmark_names())
def test_every_benchmark_has_the_name_it_is_called_by(name):
    assert name == benchmarks.load_benchmark(name).NAME


def test_parts_of_several_writers_are_read_together(tmp_path):
    with open_part(tmp_path) as first, open_part(tmp_path) as second:
        first({0: "a\u2028b", 2: "c"})
        second({1: "é\nf"})
        assert read_parts(tmp_path) == {0: "a\u2028b", 1: "é\nf", 2: "c"}
    assert read_parts(tmp_path / "none") == {}


def test_pictures_in_memory_count_by_their_size():
    questions = [
        benchmarks.BenchmarkQuestion(1, "what?", Image.new("RGB", (width, 4))) for width in (4, 5)
    ]
    hashes = {hash_questions([question], None) for question in questions}
    assert len(hashes) == 2
