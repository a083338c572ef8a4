"""What an empty page offers works with the model."""

from eval.examples import example_scene
from mllm.web.examples import GENERAL_EXAMPLES, NANO_EXAMPLES, examples_for


def test_nano_is_offered_what_it_knows(nano):
    assert examples_for(nano) == NANO_EXAMPLES


def test_nano_answers_its_examples_right(nano):
    answers = {
        example.text: nano.chat(example.text, image=f"example:{example.picture}").text
        for example in NANO_EXAMPLES
        if example.picture is not None
    }
    assert answers["how many hearts are there?"] == "three"
    assert answers["where is the triangle relative to the circle?"] == "right"
    for thing in example_scene("unseen").objects:
        assert f"{thing.color} {thing.shape}" in answers["what is in the picture?"]


def test_every_model_is_offered_questions_and_drawings():
    for examples in (NANO_EXAMPLES, GENERAL_EXAMPLES):
        assert {example.picture is None for example in examples} == {True, False}
