"""GenAI-Bench: scores by skill as officially printed, and the commands on tiny files."""

import json
import math
import sys
from operator import itemgetter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eval.file_hashes import hash_lines
from eval.genai_bench import app, picture_path
from eval.genai_skills import (
    TABLES,
    TAGS,
    check_skills,
    printed_tables,
    read_prompts,
    read_scores,
    read_skills,
    score_skills,
)
from eval.picture_folder import SETTINGS_FILE
from eval.picture_scorers import ClipFlanT5, ScoreCache, load_scorer
from eval.report import read_report
from mllm.pipeline import Pipeline
from tests.eval.scoring_goldens import load_cases
from tests.mllm.tiny_pipeline import build_tiny_pipeline

PROMPTS = ("a star", "a red circle left of a blue square", "two dots", "three dots")
SKILLS = {tag: [1, 2] for tag in TAGS} | {"advanced": [2, 3, 4], "counting": [3]}


class LengthScorer:
    """Scores by the prompt's length; counts how often it is asked."""

    name = "length"
    num_asked = 0

    def score(self, picture, prompt):
        assert picture.is_file()
        LengthScorer.num_asked += 1
        return len(prompt) / 100


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    build_tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def files(tmp_path):
    """prompts.txt and genai_skills.json of four prompts."""
    prompts, skills = tmp_path / "prompts.txt", tmp_path / "genai_skills.json"
    prompts.write_text("\n".join(PROMPTS) + "\n")
    skills.write_text(json.dumps(SKILLS))
    return [str(prompts), str(skills)]


@pytest.fixture
def pictures(tmp_path):
    """A folder with a picture of each prompt, from nobody knows where."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(1, len(PROMPTS) + 1):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(picture_path(folder, number))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def write_scores(path, scores):
    path.write_text(json.dumps(scores))
    return path


def scores_of(values):
    return dict(enumerate(values, start=1))


@pytest.mark.parametrize("case", load_cases("genai_aggregate"), ids=itemgetter("id"))
def test_tables_equal_the_official_ones(case, tmp_path):
    by_tag = score_skills(scores_of(case["scores_by_prompt_number_from_1"]), case["tags"])
    assert by_tag.keys() == case["expected_float32"].keys()
    for tag, expected in case["expected_float32"].items():
        # Measured: at most 6e-8, one float32 step.
        assert by_tag[tag].mean == pytest.approx(expected["mean"], abs=1e-6)
        assert by_tag[tag].std == pytest.approx(expected["std"], abs=1e-6)
    printed = printed_tables(by_tag)
    assert printed == case["expected_printed"]
    assert [list(table) for table in printed.values()] == [
        list(table) for table in case["expected_printed"].values()
    ]
    num_prompts = len(case["scores_by_prompt_number_from_1"])
    names = [str(picture_path(tmp_path / "imgs", n)) for n in (1, 2, num_prompts)]
    assert names == [f"{tmp_path}/{n}" for n in (*case["first_images"], case["last_image"])]


@pytest.mark.parametrize("case", load_cases("genai_aggregate"), ids=itemgetter("id"))
def test_the_score_command_stores_and_prints_the_official_tables(case, tmp_path):
    prompts, skills = tmp_path / "prompts.txt", tmp_path / "genai_skills.json"
    scores = scores_of(case["scores_by_prompt_number_from_1"])
    prompts.write_text("".join(f"prompt {number}\n" for number in scores))
    skills.write_text(json.dumps(case["tags"]))
    output = tmp_path / "report.json"
    scores_file = write_scores(tmp_path / "scores.json", scores)
    result = run("score", prompts, skills, "--scores", scores_file, "-o", output, "--unofficial")
    assert result.exit_code == 0
    report = read_report(output)
    assert report.settings["tables"] == case["expected_printed"]
    assert report.headline == ("advanced", case["expected_float32"]["advanced"]["mean"])
    for text in case["expected_printed"]["advanced"].values():
        assert text in result.stdout
    assert "not the official files: no published score compares" in result.stderr
    assert [item.score for item in report.items] == list(scores.values())


def test_the_tables_have_the_published_tags():
    assert TABLES["advanced"] == (
        *("counting", "comparison", "differentiation", "negation", "universal"),
        "advanced",
    )
    assert len(TAGS) == 12


def test_a_single_prompt_has_no_deviation_and_json_says_so(tmp_path, files):
    by_tag = score_skills(scores_of([0.5, 0.25, 0.125, 1.0]), SKILLS)
    assert str(by_tag["counting"]) == "0.12 +- nan"
    assert math.isnan(by_tag["counting"].std)
    scores = write_scores(tmp_path / "scores.json", scores_of([0.5, 0.25, 0.125, 1.0]))
    run("score", *files, "--scores", scores, "-o", tmp_path / "r.json", "--unofficial")
    assert read_report(tmp_path / "r.json").settings["std"]["counting"] is None


def test_all_is_the_union_of_the_tags_and_counts_each_prompt_once():
    by_tag = score_skills(scores_of([0.0, 1.0, 0.5, 0.5]), SKILLS)
    assert by_tag["all"].num_prompts == 4
    assert by_tag["all"].mean == 0.5


def test_only_the_official_files_are_taken_without_a_word(files):
    prompts, skills = files
    with pytest.raises(ValueError, match=r"is not GenAI-Bench's prompts.txt: .*expected 62de129d"):
        read_prompts(Path(prompts))
    with pytest.raises(ValueError, match=r"is not GenAI-Bench's genai_skills.json: .*f68a544f"):
        read_skills(Path(skills), num_prompts=4)
    with pytest.raises(FileNotFoundError, match=r"no file at .*; expected GenAI-Bench's prompts"):
        read_prompts(Path(prompts).with_name("nowhere.txt"))


def test_a_blank_line_would_shift_every_number_and_is_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\nthree\n")
    with pytest.raises(ValueError, match="line 2 is blank"):
        read_prompts(path, official=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beauty": [1]}, "must have the tags basic|must have the tags attribute"),
        ({"basic": []}, r"tag 'basic' must list prompt numbers, got \[\]"),
        ({"basic": [0]}, "tag 'basic' has 0, expected numbers from 1 to 4"),
        ({"basic": [5]}, "has 5, expected numbers from 1 to 4"),
        ({"basic": [True]}, "has True"),
    ],
)
def test_skills_that_do_not_fit_the_prompts_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_skills({**SKILLS, **changes}, num_prompts=4, source="skills")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"1": 0.5, "1": 0.6}', "prompt 1 has two scores"),
        ('{"1": 0.5, "01": 0.6}', "prompt 1 has two scores"),
        ('{"0": 0.5}', "'0' is no prompt number from 1 to 4"),
        ('{"5": 0.5}', "'5' is no prompt number from 1 to 4"),
        ('{"\u00b2": 0.5}', "is no prompt number"),
        ('{"1": "high"}', "prompt 1 must have a number as its score, got 'high'"),
        ('{"1": NaN}', "prompt 1 must have a number as its score, got nan"),
        ('{"1": true}', "got True"),
        ('{"1": {"2": 3}}', "prompt 1 must have a number"),
        ("[0.5, 0.6]", "must hold one JSON object, prompt number to score"),
        ("[]", "must hold one JSON object, prompt number to score"),
        ("0.5", "must hold one JSON object"),
        ("{", "is no JSON file"),
    ],
)
def test_scores_that_cannot_be_meant_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / "scores.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_scores(path, num_prompts=4)


def test_missing_scores_are_an_error_or_a_labelled_partial_run(tmp_path, files):
    scores = write_scores(tmp_path / "scores.json", {2: 0.5, 3: 0.25})
    arguments = ["score", *files, "--scores", scores, "-o", tmp_path / "r.json", "--unofficial"]
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "2 of 4 scores in" in refused.stderr
    assert "first of prompt 1; make them, or score what is there with --partial" in refused.stderr
    assert run(*arguments, "--partial").exit_code == 0
    report = read_report(tmp_path / "r.json")
    assert (report.counts.num_items, report.counts.num_missing) == (2, 2)
    assert "partial: 2 of 4 prompts have a score" in report.notes
    assert [item.score for item in report.items] == [None, 0.5, 0.25, None]
    write_scores(scores, {1: 0.5})
    assert run(*arguments, "--partial", "--force").exit_code == 0
    report = read_report(tmp_path / "r.json")
    assert report.metrics == {"advanced": None, "basic": 0.5, "all": 0.5}
    assert report.settings["tables"]["overall"]["advanced"] == "nan +- nan"


def test_a_scorer_sees_every_picture_once(tmp_path, files, pictures, monkeypatch):
    monkeypatch.setattr(LengthScorer, "num_asked", 0)
    arguments = ["score", *files, "--pictures", pictures, "--unofficial", "--scorer"]
    arguments.append("tests.eval.test_genai_bench:LengthScorer")
    first = run(*arguments, "-o", tmp_path / "1.json")
    assert first.exit_code == 0
    assert "scored by length" in first.stdout
    assert run(*arguments, "-o", tmp_path / "2.json").exit_code == 0
    assert LengthScorer.num_asked == len(PROMPTS)
    reports = [read_report(tmp_path / name) for name in ("1.json", "2.json")]
    assert reports[0] == reports[1]
    assert [item.score for item in reports[0].items] == [len(prompt) / 100 for prompt in PROMPTS]
    Image.new("RGB", (8, 8), "white").save(picture_path(pictures, 2))
    assert run(*arguments, "-o", tmp_path / "3.json").exit_code == 0
    assert LengthScorer.num_asked == len(PROMPTS) + 1


def test_missing_pictures_are_an_error(tmp_path, files, pictures):
    picture_path(pictures, 3).unlink()
    scorer = ["--scorer", "tests.eval.test_genai_bench:LengthScorer", "--unofficial"]
    result = run("score", *files, "--pictures", pictures, *scorer, "-o", tmp_path / "r.json")
    assert result.exit_code == 1
    assert "1 of 4 pictures in" in result.stderr
    assert "first of prompt 3" in result.stderr


def test_scores_of_other_scorers_and_prompts_are_not_mixed_up(tmp_path, pictures):
    path = picture_path(pictures, 1)
    cache = ScoreCache(tmp_path / "cache.json", LengthScorer())
    assert cache.score(path, "four") == 0.04
    assert cache.score(path, "fives") == 0.05
    other = LengthScorer()
    other.name = "other"
    other.score = lambda picture, prompt: 1.0
    assert ScoreCache(tmp_path / "cache.json", other).score(path, "four") == 1.0
    assert ScoreCache(tmp_path / "cache.json", LengthScorer()).score(path, "four") == 0.04


def test_a_score_that_is_no_number_is_refused(tmp_path, pictures):
    broken = LengthScorer()
    broken.score = lambda picture, prompt: math.nan
    with pytest.raises(ValueError, match=r"length gives .*00001\.jpg the score nan"):
        ScoreCache(tmp_path / "cache.json", broken).score(picture_path(pictures, 1), "a star")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("length", "a scorer is written module:name"),
        ("no_such_module:Scorer", "no scorer is found at no_such_module:Scorer"),
        ("math:no_such_name", "no scorer is found at math:no_such_name"),
        ("builtins:dict", "it needs a name and score"),
    ],
)
def test_what_is_no_scorer_is_explained(reference, message):
    with pytest.raises(ValueError, match=message):
        load_scorer(reference)


def test_without_its_package_the_vqascore_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "t2v_metrics", None)
    with pytest.raises(RuntimeError, match=r"install a release before 3\.1.*--scores FILE"):
        ClipFlanT5()


def test_the_vqascore_asks_its_package_about_one_pair_at_a_time(monkeypatch):
    asked = []

    class VQAScore:
        def __init__(self, model):
            asked.append(model)

        def __call__(self, images, texts):
            asked.append((images, texts))
            return np.array([[0.25]])

    package = ModuleType("t2v_metrics")
    package.VQAScore = VQAScore
    monkeypatch.setitem(sys.modules, "t2v_metrics", package)
    scorer = load_scorer("eval.picture_scorers:ClipFlanT5")
    assert scorer.score(Path("1.jpg"), "a star") == 0.25
    assert asked == ["clip-flant5-xxl", (["1.jpg"], ["a star"])]


def test_scores_come_from_a_file_or_a_scorer(tmp_path, files):
    arguments = ["score", *files, "-o", tmp_path / "r.json"]
    assert "give either --scores FILE or --scorer" in run(*arguments).stderr
    assert "name their folder with --pictures" in run(*arguments, "--scorer", "a:b").stderr


def test_pictures_are_drawn_as_unitok_stores_them_and_only_once(tmp_path, files, model):
    folder = tmp_path / "drawn"
    arguments = ["generate", files[0], "-o", folder, "--model", model, "--unofficial"]
    arguments += ["--seed", 7, "--batch-size", 3, "--device", "cpu"]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "drawing 4 of 4 pictures" in result.stderr
    assert "all 4 are in" in result.stderr
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00001.jpg", "00002.jpg", "00003.jpg", "00004.jpg", SETTINGS_FILE]

    pipeline = Pipeline.from_pretrained(model, device="cpu")
    [third] = pipeline.generate_images(PROMPTS[2], num_images=1, seed=7 + 2, rounding="truncate")
    third.save(tmp_path / "third.jpg")  # Pillow's default quality
    assert picture_path(folder, 3).read_bytes() == (tmp_path / "third.jpg").read_bytes()

    picture_path(folder, 3).unlink()
    kept = picture_path(folder, 1).stat().st_mtime_ns
    assert "drawing 3 of 4 pictures" in run(*arguments).stderr
    assert picture_path(folder, 1).stat().st_mtime_ns == kept
    assert picture_path(folder, 3).read_bytes() == (tmp_path / "third.jpg").read_bytes()
    refused = run(*arguments, "--guidance-scale", 2)
    assert refused.exit_code == 1
    assert "give the same settings to go on" in refused.stderr


def test_two_processes_draw_the_pictures_of_one(tmp_path, files, model, monkeypatch):
    arguments = ["generate", files[0], "--model", model, "--unofficial", "--batch-size", 2]
    assert run(*arguments, "-o", tmp_path / "one").exit_code == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        result = run(*arguments, "-o", tmp_path / "two")
        assert ("2 of 4 are still missing" in result.stderr) == (rank == "1")
    refused = run(*arguments, "-o", tmp_path / "two", "--num-processes", 2)
    assert "this is one of 2 processes already; leave --num-processes out" in refused.stderr
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


def test_the_report_says_how_the_pictures_were_drawn_and_refuses_those_of_other_prompts(
    tmp_path, files, pictures
):
    scores = write_scores(tmp_path / "scores.json", scores_of([0.5] * 4))
    arguments = ["score", *files, "--scores", scores, "--pictures", pictures, "--unofficial"]
    settings = {"prompts_sha256": hash_lines(PROMPTS), "sampling": {"guidance_scale": 7.0}}
    (pictures / SETTINGS_FILE).write_text(json.dumps(settings))
    assert run(*arguments, "-o", tmp_path / "r.json").exit_code == 0
    assert read_report(tmp_path / "r.json").settings["generation"] == settings
    (pictures / SETTINGS_FILE).write_text(json.dumps({"prompts_sha256": "other"}))
    refused = run(*arguments, "-o", tmp_path / "s.json")
    assert "were drawn for other prompts than these" in refused.stderr


def test_a_finished_report_is_kept_unless_forced(tmp_path, files):
    scores = write_scores(tmp_path / "scores.json", scores_of([0.5] * 4))
    arguments = ["score", *files, "--scores", scores, "-o", tmp_path / "r.json", "--unofficial"]
    assert run(*arguments).exit_code == 0
    assert "pass --force to overwrite it" in run(*arguments).stderr
    assert run(*arguments, "--force").exit_code == 0
