"""The plug-in for lmms-eval, against a stand-in for the few names that it takes from there."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from mllm.likelihood import build_answered, measure_answers
from mllm.messages import as_messages
from mllm.pipeline import Pipeline
from tests.mllm.tiny_pipeline import build_tiny_pipeline, make_model_say

EOS = 2
RED = Image.new("RGB", (40, 40), "red")
GRADIENT = Image.linear_gradient("L").convert("RGB")
DOCUMENTS = [
    {"question": "what color?", "pictures": [RED], "answer": "red"},
    {"question": "is the red star left of it?", "pictures": [GRADIENT, RED], "answer": "a star"},
    {"question": "what?", "pictures": None, "answer": "blue circle"},
]


class LmmsBase:
    """What `lmms_eval.api.model.lmms` brings."""

    def __init__(self) -> None:
        self.rank = 0
        self.task_dict: dict[str, Any] = {}
        self.cached: list[tuple[Any, ...]] = []
        self.cache_hook = self

    def add_partial(self, *entry: Any) -> None:
        self.cached.append(entry)


@dataclass
class ModelManifest:
    model_id: str
    simple_class_path: str


@dataclass
class Request:
    args: tuple[Any, ...]


@pytest.fixture(scope="module")
def plug_in() -> Iterator[ModuleType]:
    stand_ins = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": LmmsBase},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, content in stand_ins.items():
            module = ModuleType(name)
            vars(module).update(content)
            patch.setitem(sys.modules, name, module)
        patch.delitem(sys.modules, "mllm.lmms", raising=False)
        yield importlib.import_module("mllm.lmms")
    sys.modules.pop("mllm.lmms", None)


@pytest.fixture
def pipeline() -> Pipeline:
    return build_tiny_pipeline()


@pytest.fixture
def model(plug_in: ModuleType, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(plug_in.Pipeline, "from_pretrained", lambda *args, **kwargs: pipeline)
    built = plug_in.UniTokForLmmsEval(batch_size="2", max_batch_size=None)
    built.task_dict = {"colors": {"test": DOCUMENTS}}
    return built


def pictures_of(document: dict[str, Any]) -> Any:
    return document["pictures"]


def generate_request(number: int, **arguments: Any) -> Request:
    question = DOCUMENTS[number]["question"]
    return Request((question, arguments, pictures_of, number, "colors", "test"))


def chat(pipeline: Pipeline, number: int, **settings: Any) -> str:
    document = DOCUMENTS[number]
    return pipeline.chat(document["question"], document["pictures"], **settings).text


def test_the_registry_learns_where_the_model_is(plug_in):
    manifest = plug_in.manifest()
    assert manifest.model_id == "unitok_mllm"
    module, _, name = manifest.simple_class_path.rpartition(".")
    assert getattr(sys.modules[module], name) is plug_in.UniTokForLmmsEval
    assert issubclass(plug_in.UniTokForLmmsEval, LmmsBase)
    assert plug_in.UniTokForLmmsEval.is_simple


def test_answers_are_those_of_single_chats_whatever_is_asked_together(model, pipeline):
    lengths = [8, 3, 8]
    requests = [
        generate_request(number, max_new_tokens=length) for number, length in enumerate(lengths)
    ]
    expected = [
        chat(pipeline, number, max_new_tokens=length) for number, length in enumerate(lengths)
    ]
    assert model.generate_until(requests) == expected
    assert {entry[2] for entry in model.cached} == set(expected)
    assert all(entry[0] == "generate_until" for entry in model.cached)


def test_a_temperature_samples_unless_the_task_says_not_to(model, pipeline):
    sampled, greedy = model.generate_until(
        [
            generate_request(0, max_new_tokens=8, temperature=2.0, do_sample=True, top_p=0.9),
            generate_request(0, max_new_tokens=8, temperature=2.0, do_sample=False, top_p=0.9),
        ]
    )
    assert sampled == chat(pipeline, 0, max_new_tokens=8, temperature=2.0, top_p=0.9)
    assert greedy == chat(pipeline, 0, max_new_tokens=8) != sampled


@pytest.mark.parametrize("until", ["star", ["star", "\n\n", ""], ["of a", "star"]])
def test_an_answer_ends_before_the_first_stop_text(model, pipeline, until):
    make_model_say(pipeline, "a red star left of a star", EOS)
    [answer] = model.generate_until([generate_request(0, max_new_tokens=50, until=until)])
    assert answer == "a red"


def test_losses_are_means_and_the_likeliest_option_has_the_lowest(model, pipeline):
    options = ["red", "a blue star", "black"]
    requests = [
        Request((DOCUMENTS[0]["question"], f" {option}", pictures_of, 0, "colors", "test"))
        for option in options
    ]
    rows = [
        build_answered(pipeline.processor, as_messages("what color?", RED), each, name="")
        for each in options
    ]
    expected = measure_answers(pipeline, rows, batch_size=3)
    found = model.loglikelihood(requests)
    assert [loss for loss, _ in found] == pytest.approx([each.mean_loss for each in expected])
    assert [greedy for _, greedy in found] == [each.is_greedy for each in expected]
    assert min(loss for loss, _ in found) > 0


def test_the_answer_to_measure_may_come_from_the_document(model):
    def answer_of(document: dict[str, Any]) -> str:
        return document["answer"]

    place = (pictures_of, 1, "colors", "test")
    by_function = model.loglikelihood([Request(("what?", answer_of, *place))])
    assert by_function == model.loglikelihood([Request(("what?", "a star", *place))])


def test_each_round_sees_the_answers_before_it(model, pipeline):
    seen = []

    def next_round(document, *, previous_output, round_idx, previous_round_info):
        seen.append((list(previous_output), round_idx, previous_round_info))
        is_over = round_idx == 2
        return [GRADIENT], f"and {round_idx}?", is_over, previous_output, f"info {round_idx}"

    request = Request(
        ("what color?", {"max_new_tokens": 4}, pictures_of, next_round, 0, "colors", "test")
    )
    [rounds] = model.generate_until_multi_round([request])
    second = pipeline.chat("and 1?", GRADIENT, max_new_tokens=4).text
    assert rounds == [chat(pipeline, 0, max_new_tokens=4), second]
    assert seen == [(rounds[:1], 1, None), (rounds, 2, "info 1")]


def test_what_the_model_cannot_do_is_refused_by_document(model, plug_in):
    with pytest.raises(ValueError, match="num_beams must be 1, got 4"):
        model.generate_until([generate_request(0, num_beams=4)])
    too_long = Request(("star " * 200, {}, pictures_of, 0, "colors", "test"))
    with pytest.raises(ValueError, match="document 0 of colors: the prompt is"):
        model.generate_until([too_long])
    model.task_dict["colors"] = {"test": [{"pictures": ["film.mp4"]}]}
    with pytest.raises(ValueError, match="document 0 of colors shows a str, but this model"):
        model.generate_until([generate_request(0)])
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got"):
        plug_in.UniTokForLmmsEval(batch_size="auto")


def test_arguments_that_change_nothing_are_named_in_the_log(model, caplog):
    model.generate_until([generate_request(0, max_new_tokens=2, image_aspect_ratio="original")])
    assert "generation arguments without effect: image_aspect_ratio" in caplog.text


def test_without_lmms_eval_the_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    monkeypatch.delitem(sys.modules, "lmms_eval.api.model", raising=False)
    monkeypatch.delitem(sys.modules, "mllm.lmms", raising=False)
    with pytest.raises(ImportError, match=r"plug-in of lmms-eval, .* pip install lmms-eval"):
        importlib.import_module("mllm.lmms")
