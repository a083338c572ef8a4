"""What the demo does, piece by piece: looks at pictures, draws some, and takes pictures apart.

The content of every picture is known, so every answer and every drawing is judged.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from eval.examples import EXAMPLES, draw_example, example_scene
from eval.inspector import InspectedObject, inspect, same_objects
from eval.scene_judge import judge_drawing
from eval.scene_questions import Question, describe, questions
from eval.scene_scores import is_right
from eval.scene_text import NUMBER_WORDS, TASKS, counted, drawing_prompt, joined
from eval.scenes import COLORS, Scene, render, scene_for
from eval.shapes import SHAPES
from mllm.pipeline import MAX_BATCH_SIZE, Pipeline
from unitok.image import preprocess, psnr

NUM_HELD_OUT = 4  # pictures to talk about, besides the examples
NUM_QUESTIONS = 3  # about each picture, besides the description
PROMPTS_PER_TASK = 2
NUM_DRAWINGS = 4  # of each prompt
NUM_RECONSTRUCTIONS = 8
MAX_ANSWER_TOKENS = 96  # a description of four objects is about half as long
DESCRIPTION = "description"
TASK_WORDS = {
    "single_object": "one object", "two_object": "two objects", "counting": "counting",
    "colors": "a color", "position": "position", "color_attr": "two colors",
}  # fmt: skip
_COUNT_CLAUSE = re.compile(
    r"expected (?P<name>.+?)(?P<sign>>=|<)(?P<number>\d+), found (?P<found>\d+)"
)

_NAMED_OBJECT = re.compile(
    rf"\b(an?|{'|'.join(NUMBER_WORDS[2:])}) (small|large) ({'|'.join(COLORS)}) "
    rf"({'|'.join(SHAPES)})(?:e?s)?\b"
)


@dataclass(frozen=True)
class Turn:
    """A question, what the model answered, and what it should have answered."""

    kind: str
    question: str
    answer: str
    expected: str
    right: bool


@dataclass(frozen=True, eq=False)
class Conversation:
    """Several questions in a row about one picture."""

    title: str
    picture: Image.Image
    turns: tuple[Turn, ...]


@dataclass(frozen=True, eq=False)
class JudgedDrawing:
    """A drawing and GenEval's verdict on it; `seen` is what the inspector found, in words."""

    picture: Image.Image
    right: bool
    reason: str
    seen: str


@dataclass(frozen=True, eq=False)
class DrawnPrompt:
    """Several drawings of one prompt."""

    task: str
    prompt: str
    drawings: tuple[JudgedDrawing, ...]

    @property
    def num_right(self) -> int:
        return sum(drawing.right for drawing in self.drawings)

    @property
    def task_words(self) -> str:
        """The task's name for people."""
        return TASK_WORDS[self.task]


@dataclass(frozen=True, eq=False)
class ChatDrawing:
    """A drawing asked for in a chat, and a question about it; None for what did not happen."""

    request: str
    answer: str
    drawing: JudgedDrawing | None
    follow_up: Turn | None


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A picture before and after encoding; right if the inspector finds the same objects."""

    original: Image.Image
    picture: Image.Image
    psnr: float
    right: bool


# ---- looking -------------------------------------------------------------------------------------


def hold_conversations(pipeline: Pipeline, seed: int) -> Iterator[Conversation]:
    """Talk about the examples, then about held-out scenes; every conversation as it ends."""
    for name in EXAMPLES:
        rng = random.Random(f"demo:{seed}:{name}")
        yield hold_conversation(
            pipeline, draw_example(name), example_scene(name), rng=rng, title=f"example:{name}"
        )
    for number in range(NUM_HELD_OUT):
        rng = random.Random(f"demo:{seed}:{number}")
        scene = held_out_scene(seed, number)
        picture = draw_scene(pipeline, scene)
        yield hold_conversation(
            pipeline, picture, scene, rng=rng, title=f"held-out scene {number + 1}"
        )


def hold_conversation(
    pipeline: Pipeline, picture: Image.Image, scene: Scene, *, rng: random.Random, title: str
) -> Conversation:
    """Ask for a description, then several questions, each with the turns before it in mind."""
    asked = [describe(scene, rng), *questions(scene, rng, balanced=False)[:NUM_QUESTIONS]]
    turns: list[Turn] = []
    history: Sequence[Mapping[str, Any]] = ()
    for question in asked:
        shown = None if turns else picture
        answer = pipeline.chat(
            question.question, shown, history=history, max_new_tokens=MAX_ANSWER_TOKENS
        )
        history = answer.messages
        turns.append(judge_answer(answer.text, question, scene))
    return Conversation(title, picture, tuple(turns))


def judge_answer(answer: str, question: Question, scene: Scene) -> Turn:
    """Short answers must be the expected word; a description must name the scene's objects."""
    if question.kind == DESCRIPTION:
        right = names_all_objects(answer, scene)
    else:
        right = is_right(answer, question)
    # Line breaks would tear the print-out apart.
    answer = " ".join(answer.split())
    return Turn(question.kind, question.question, answer, question.answer, right)


def names_all_objects(text: str, scene: Scene) -> bool:
    """Whether a description lists exactly the scene's objects with their sizes and colours.

    Relations and the background are not looked at.
    """
    named: Counter[tuple[str, ...]] = Counter()
    for number, *look in _NAMED_OBJECT.findall(text.lower()):
        named[tuple(look)] += NUMBER_WORDS.index(number) if number in NUMBER_WORDS else 1
    return named == Counter((item.size, item.color, item.shape) for item in scene.objects)


def held_out_scene(seed: int, number: int) -> Scene:
    """The scenes of the demo; other seeds show others."""
    return scene_for("held_out", 1000 * seed + number)


def draw_scene(pipeline: Pipeline, scene: Scene) -> Image.Image:
    """A scene at the size that the model reads, as in the full scores."""
    return Image.fromarray(render(scene, pipeline.image_size))


# ---- drawing -------------------------------------------------------------------------------------


def draw_prompts(pipeline: Pipeline, seed: int) -> Iterator[DrawnPrompt]:
    """Draw held-out prompts of all six tasks; every prompt as its drawings are there."""
    prompts = demo_prompts(seed)
    num_at_once = max(1, MAX_BATCH_SIZE // NUM_DRAWINGS)
    for start in range(0, len(prompts), num_at_once):
        chunk = prompts[start : start + num_at_once]
        texts = [metadata["prompt"] for metadata in chunk]
        pictures = iter(pipeline.generate_images(texts, num_images=NUM_DRAWINGS, seed=seed))
        for metadata in chunk:
            own = islice(pictures, NUM_DRAWINGS)
            drawings = tuple(judge_picture(picture, metadata) for picture in own)
            yield DrawnPrompt(metadata["tag"], metadata["prompt"], drawings)


def demo_prompts(seed: int) -> list[dict[str, Any]]:
    """GenEval metadata of the prompts, task by task; no two of a task ask for the same."""
    prompts: list[dict[str, Any]] = []
    for task in TASKS:
        rng = random.Random(f"demo:{seed}:{task}")
        chosen: list[dict[str, Any]] = []
        while len(chosen) < PROMPTS_PER_TASK:
            metadata = drawing_prompt(task, rng, "held_out")
            if all(metadata["include"] != other["include"] for other in chosen):
                chosen.append(metadata)
        prompts += chosen
    return prompts


def judge_picture(picture: Image.Image, metadata: Mapping[str, Any]) -> JudgedDrawing:
    """Let the inspector look at a drawing of a prompt."""
    found = inspect(np.asarray(picture))
    verdict = judge_drawing(found, metadata)
    return JudgedDrawing(picture, verdict.correct, in_words(verdict.reason), name_objects(found))


def in_words(reason: str) -> str:
    """GenEval's reason, which writes "ring>=1", as a sentence: "expected at least 1 ring"."""
    clauses = []
    for line in reason.splitlines():
        count = _COUNT_CLAUSE.fullmatch(line)
        if count is not None:
            sign = "at least" if count["sign"] == ">=" else "fewer than"
            line = f"expected {sign} {count['number']} {count['name']}, found {count['found']}"
        clauses.append(line)
    return "; ".join(clauses)


def name_objects(found: Sequence[InspectedObject]) -> str:
    """What the inspector found, such as "a red star and two blue rings"."""
    looks = Counter(f"{item.color} {item.shape}" for item in found)
    phrases = [
        counted(count, look) if count < len(NUMBER_WORDS) else f"{count} x {look}"
        for look, count in looks.items()
    ]
    return joined(phrases) if phrases else "nothing"


def draw_in_chat(pipeline: Pipeline, seed: int) -> ChatDrawing:
    """Ask for a drawing in words; if one comes, ask about it as well."""
    metadata = drawing_prompt("color_attr", random.Random(f"demo chat:{seed}"), "held_out")
    wish = metadata["prompt"].removeprefix("a photo of ").removeprefix("a picture of ")
    request = f"please draw {wish}."
    answer = pipeline.chat(request, max_new_tokens=MAX_ANSWER_TOKENS, seed=seed)
    if not answer.images:
        return ChatDrawing(request, answer.text, None, None)
    picture = answer.images[0]
    follow_up = None
    question = color_question(inspect(np.asarray(picture)))
    if question is not None:
        reply = pipeline.chat(
            question.question, history=answer.messages, max_new_tokens=MAX_ANSWER_TOKENS
        )
        right = is_right(reply.text, question)
        follow_up = Turn("color", question.question, reply.text, question.answer, right)
    return ChatDrawing(request, answer.text, judge_picture(picture, metadata), follow_up)


def color_question(found: Sequence[InspectedObject]) -> Question | None:
    """A question about the first object whose shape occurs once, answered by the inspector."""
    shapes = Counter(item.shape for item in found)
    for item in found:
        if shapes[item.shape] == 1:
            return Question("color", f"what color is the {item.shape}?", item.color)
    return None


# ---- taking apart and putting together -----------------------------------------------------------


def reconstruct_scenes(pipeline: Pipeline, seed: int) -> Iterator[Reconstruction]:
    """Encode and decode held-out scenes, other ones than those talked about."""
    for number in range(NUM_HELD_OUT, NUM_HELD_OUT + NUM_RECONSTRUCTIONS):
        scene = held_out_scene(seed, number)
        original = draw_scene(pipeline, scene)
        picture, value = reconstruct(pipeline, original)
        right = same_objects(inspect(np.asarray(picture)), scene)
        yield Reconstruction(original, picture, value, right)


def reconstruct(pipeline: Pipeline, picture: Image.Image) -> tuple[Image.Image, float]:
    """A picture after encoding and decoding, and the PSNR in dB against what the model read."""
    codes = pipeline.encode_picture(picture)["codes"]
    rebuilt = pipeline.decode(codes[None])[0]
    read = preprocess(picture, pipeline.model.config.image_recipe, image_size=pipeline.image_size)
    return rebuilt, psnr(read, preprocess(rebuilt, "native")).item()
