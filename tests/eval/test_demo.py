import json
import random
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eval import demo as command
from eval import demo_items
from eval.demo_items import (
    Turn,
    color_question,
    demo_prompts,
    draw_in_chat,
    held_out_scene,
    hold_conversation,
    judge_answer,
    judge_picture,
    name_objects,
    names_all_objects,
    reconstruct,
)
from eval.demo_page import build_page
from eval.demo_results import StoredRate, StoredScores, compare_scores, load_stored_scores
from eval.demo_sheet import STRIP_PROMPTS, STRIP_SIZE, wrap
from eval.examples import draw_example, example_scene
from eval.inspector import inspect
from eval.scene_questions import Question, describe, questions
from eval.scene_text import TASKS, scene_matching
from eval.scenes import is_held_out, render
from mllm.pipeline import Pipeline
from tests.mllm.tiny_pipeline import build_tiny_pipeline, make_model_say

EOS, BOI = 2, 3
SHORT = {"MAX_ANSWER_TOKENS": 3, "NUM_HELD_OUT": 1, "NUM_RECONSTRUCTIONS": 2, "NUM_DRAWINGS": 2}


def build_patient_pipeline() -> Pipeline:
    """Tiny and random; long conversations of nonsense fit into its context."""
    pipeline = build_tiny_pipeline()
    pipeline.processor.context_length = 2000
    return pipeline


@pytest.fixture
def pipeline():
    return build_patient_pipeline()


@pytest.fixture(scope="module")
def demo():
    """A short run with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SHORT.items():
            patch.setattr(demo_items, name, value)
        patch.setattr(demo_items, "EXAMPLES", ("star", "unseen"))
        return command.run_demo(build_patient_pipeline(), seconds={"loading": 1.0})


def stored_scores(fingerprint: str) -> StoredScores:
    rates = {
        name: StoredRate(1020, 0.9, 0.25) for name in ("questions", "drawings", "reconstruction")
    }
    return StoredScores("python -m eval.nano", "2026-01-31", fingerprint, rates)


# -- what is asked, drawn and judged ---------------------------------------------------------------


def test_a_run_judges_every_answer_drawing_and_reconstruction(demo):
    assert [each.title for each in demo.conversations] == [
        "example:star",
        "example:unseen",
        "held-out scene 1",
    ]
    assert all(len(each.turns) > 1 for each in demo.conversations)
    assert [each.task for each in demo.prompts] == [task for task in TASKS for _ in range(2)]
    assert all(len(each.drawings) == 2 for each in demo.prompts)
    assert len(demo.reconstructions) == 2
    assert list(demo.seconds) == ["loading", "talking", "drawing", "encoding and decoding"]
    assert demo.peak_memory_gib > 0.1
    rows = {row.name: row.num_items for row in compare_scores(demo, None)}
    assert rows["drawings"] == 24
    assert rows["descriptions"] == 3


def test_right_answers_in_a_conversation_are_judged_right(pipeline):
    scene = example_scene("unseen")
    rng = random.Random(3)
    asked = [describe(scene, rng), *questions(scene, rng, balanced=False)[:3]]
    make_model_say(pipeline, *(part for each in asked for part in (each.answer, EOS)))
    talk = hold_conversation(
        pipeline, draw_example("unseen"), scene, rng=random.Random(3), title="a"
    )
    assert [turn.question for turn in talk.turns] == [each.question for each in asked]
    assert [turn.right for turn in talk.turns] == [True] * 4


def test_a_wrong_answer_keeps_what_was_expected():
    question = Question("color", "what color is the star?", "green")
    turn = judge_answer("re\nd", question, example_scene("unseen"))
    assert turn == Turn("color", "what color is the star?", "re d", "green", False)


@pytest.mark.parametrize("index", range(20))
def test_true_descriptions_name_all_objects_and_those_of_other_scenes_do_not(index):
    scene, other = held_out_scene(0, index), held_out_scene(1, index)
    text = describe(scene, random.Random(index)).answer
    assert names_all_objects(text, scene)
    assert not names_all_objects(text, other)


def test_a_description_with_a_wrong_number_is_wrong():
    hearts = example_scene("hearts")
    text = "i see a large red heart and two small red hearts on a sage background."
    assert names_all_objects(text, hearts)
    assert not names_all_objects(text.replace("two", "three"), hearts)
    assert not names_all_objects("", hearts)


def test_prompts_of_a_task_differ_and_other_seeds_ask_for_others():
    prompts = demo_prompts(0)
    wanted = [json.dumps(prompt["include"]) for prompt in prompts]
    assert len(set(wanted)) == 12
    assert prompts == demo_prompts(0)
    assert prompts != demo_prompts(1)


@pytest.mark.parametrize("metadata", demo_prompts(0), ids=lambda each: each["prompt"])
def test_a_drawing_that_fits_its_prompt_is_right(metadata):
    scene = scene_matching(metadata, random.Random(0))
    drawing = judge_picture(Image.fromarray(render(scene, 64)), metadata)
    assert drawing.right, drawing.reason
    assert metadata["include"][0]["class"] in drawing.seen


def test_a_wrong_drawing_says_why_and_what_is_seen():
    metadata = {"tag": "single_object", "include": [{"class": "ring", "count": 1}], "prompt": "a"}
    drawing = judge_picture(draw_example("hearts"), metadata)
    assert not drawing.right
    assert drawing.reason == "expected at least 1 ring, found 0"
    assert drawing.seen == "three red hearts"


def test_an_empty_drawing_shows_nothing():
    assert name_objects([]) == "nothing"
    assert color_question([]) is None


def test_held_out_scenes_are_held_out_and_change_with_the_seed():
    assert all(is_held_out(held_out_scene(0, number)) for number in range(12))
    assert held_out_scene(0, 0) != held_out_scene(1, 0)


def test_the_question_about_a_drawing_is_answered_by_the_inspector():
    question = color_question(inspect(np.asarray(draw_example("rings"))))
    assert (question.question, question.answer) == ("what color is the triangle?", "pink")


def test_a_drawing_in_a_chat_is_shown_and_judged(pipeline):
    make_model_say(pipeline, "here", BOI, EOS, "red", EOS)
    chat = draw_in_chat(pipeline, 0)
    assert chat.request.startswith("please draw a")
    assert chat.answer == "here"
    assert chat.drawing.picture.size == (32, 32)
    assert chat.follow_up is None or chat.follow_up.answer == "red"


def test_a_chat_without_a_drawing_is_no_error(pipeline):
    make_model_say(pipeline, "no", EOS)
    chat = draw_in_chat(pipeline, 0)
    assert (chat.answer, chat.drawing, chat.follow_up) == ("no", None, None)


def test_a_picture_of_another_size_is_compared_with_what_the_model_read(pipeline):
    rebuilt, value = reconstruct(pipeline, draw_example("star"))
    assert rebuilt.size == (32, 32)
    assert 0 < value < 40


# -- stored scores ---------------------------------------------------------------------------------


def test_stored_scores_stand_beside_the_live_ones(demo, tmp_path):
    rate = {"num_items": 1020, "score": 0.9, "shuffled_score": 0.25}
    rates = {name: {"all": rate} for name in ("questions", "drawings", "reconstruction")}
    content = {"command": "c", "date": "2026-01-31", "model_fingerprint": "f", **rates}
    path = tmp_path / "nano.json"
    path.write_text(json.dumps(content))
    stored = load_stored_scores(path)
    questions_row, descriptions_row, *_ = compare_scores(demo, stored)
    assert (questions_row.full, questions_row.shuffled) == ("90.0% of 1020", "25.0%")
    assert (descriptions_row.full, descriptions_row.shuffled) == ("-", "-")
    assert stored.origin("f") == "stored scores, measured on 2026-01-31 with: c"
    assert "of other weights: f, not g" in stored.origin("g")


def test_missing_stored_scores_are_no_error_and_damaged_ones_say_the_remedy(tmp_path):
    assert load_stored_scores(tmp_path / "nano.json") is None
    (tmp_path / "nano.json").write_text('{"command": "c"}')
    with pytest.raises(ValueError, match=r"holds no scores of ours .* python -m eval\.nano"):
        load_stored_scores(tmp_path / "nano.json")


# -- the page and the pictures ---------------------------------------------------------------------


class PageReader(HTMLParser):
    """Checks that tags close in order, and collects addresses."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read_page(page: str) -> PageReader:
    reader = PageReader()
    reader.feed(page)
    assert not reader.open
    return reader


def test_the_page_is_well_formed_and_needs_nothing_else(demo):
    page = build_page(demo, stored_scores(demo.model_fingerprint), next_steps=["unitok <x>"])
    reader = read_page(page)
    pictures = 3 + 24 + 2 * 2 + (demo.chat_drawing.drawing is not None)
    assert len(reader.addresses) == pictures
    assert all(each.startswith("data:image/png;base64,") for each in reader.addresses)
    assert "url(" not in page
    assert "unitok <x>" in reader.text
    assert "measured on 2026-01-31" in reader.text
    assert all(drawn.prompt in reader.text for drawn in demo.prompts)


def test_a_rerun_replaces_its_own_files_only(demo, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    for _ in range(2):
        command.write_demo(demo, tmp_path, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "contact_sheet.png",
        "index.html",
        "mine.txt",
    ]
    read_page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert Image.open(tmp_path / "contact_sheet.png").width == 1440


def test_text_is_wrapped_at_words_and_stays_indented():
    lines = wrap("  one two three four five six seven eight", 90)
    assert len(lines) > 2
    assert all(line.startswith("  ") for line in lines)
    assert " ".join(line.strip() for line in lines) == "one two three four five six seven eight"
    assert wrap("", 90) == [""]


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def loaded(monkeypatch, pipeline):
    """The command works with a tiny model, and not for long."""
    for name, value in SHORT.items():
        monkeypatch.setattr(demo_items, name, value)
    monkeypatch.setattr(demo_items, "EXAMPLES", ("star",))
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: pipeline)


@pytest.mark.usefixtures("loaded")
def test_the_command_prints_scores_and_ends_with_where_to_look(tmp_path):
    result = CliRunner().invoke(command.app, ["-o", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    assert "[example:star]" in result.stdout
    assert "peak memory" in result.stdout
    assert f"look at {tmp_path}/demo/index.html" in result.stdout
    assert "chat --image example:shapes" in result.stdout.splitlines()[-5]
    assert (tmp_path / "demo" / "index.html").is_file()


@pytest.mark.usefixtures("loaded")
def test_the_strip_shows_a_picture_its_reconstruction_and_a_drawing_of_each_prompt(tmp_path):
    path = tmp_path / "strip.png"
    result = CliRunner().invoke(command.app, ["--strip", str(path)])
    assert result.exit_code == 0, result.output
    assert Image.open(path).width > STRIP_SIZE * (2 + len(STRIP_PROMPTS))


@pytest.mark.usefixtures("loaded")
def test_an_output_that_cannot_be_written_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(command.app, ["-o", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "is a file; name a folder" in result.stderr
    result = CliRunner().invoke(command.app, ["--strip", str(tmp_path / "no" / "strip.png")])
    assert (result.exit_code, "create the folder" in result.stderr) == (1, True)
