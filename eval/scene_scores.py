"""How well a model reads and draws the drawn world: three scores over held-out scenes.

Each item is scored twice: as it is, and with the codes (or prompts) of the next item in its place.
What stays right after that shuffle was answered from priors, not from the picture or the prompt.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from eval.inspector import InspectedObject, inspect, same_objects
from eval.scene_judge import judge_drawing
from eval.scene_questions import KINDS, Question, sample_question
from eval.scene_text import held_out_prompts
from eval.scenes import Scene, render, scene_for
from mllm.batch_answers import answer_prompts, build_prompt
from mllm.generation import Progress
from mllm.pipeline import Pipeline
from unitok.image import to_pil
from unitok.model import UniTok

BATCH_SIZE = 64
MAX_ANSWER_TOKENS = 12  # the longest right answer is a few pieces long


@dataclass(frozen=True)
class Rate:
    """How many items were right, as they are and shuffled."""

    num_items: int
    num_right: int
    num_right_shuffled: int

    @property
    def score(self) -> float:
        return self.num_right / self.num_items

    @property
    def shuffled_score(self) -> float:
        return self.num_right_shuffled / self.num_items


Rates = dict[str, Rate]
Item = TypeVar("Item")


# ---- reconstruction ------------------------------------------------------------------------------


def score_reconstruction(
    tokenizer: UniTok, *, num_items: int, progress: Progress | None = None
) -> Rates:
    """Share of held-out scenes in which the inspector finds the same objects after a round trip.

    Groups: "all", then by the number of objects ("1 object" ... "4 objects").
    """
    scenes = [scene_for("held_out", index) for index in range(num_items)]
    found: list[list[InspectedObject]] = []
    for batch in _batches(scenes):
        pixels = scene_pixels(batch, tokenizer.config.image_size).to(tokenizer.device)
        with torch.inference_mode():
            pictures = to_pil(tokenizer.decode(tokenizer.encode(pixels)))
        found += [inspect(np.asarray(picture)) for picture in pictures]
        _report(progress, len(found), num_items)
    right = [same_objects(*pair) for pair in zip(found, scenes, strict=True)]
    shuffled = [same_objects(*pair) for pair in zip(found, _next(scenes), strict=True)]
    return count_rates([_object_group(len(scene.objects)) for scene in scenes], right, shuffled)


def scene_pixels(scenes: Sequence[Scene], image_size: int) -> Tensor:
    """Draw scenes as pixels (B, 3, S, S) in [-1, 1]."""
    pictures = np.stack([render(scene, image_size) for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---- questions -----------------------------------------------------------------------------------


def score_questions(
    pipeline: Pipeline, *, num_per_kind: int, seed: int = 0, progress: Progress | None = None
) -> Rates:
    """Share of right answers about held-out scenes: "all", then by kind of question."""
    items = held_out_questions(num_per_kind, seed=seed)
    codes = encode_scenes(pipeline.tokenizer, [scene for scene, _ in items])
    asked = [question for _, question in items]
    groups = [question.kind for question in asked]
    halves: list[list[bool]] = []
    for number, shown in enumerate((codes, _shuffle_within(codes, groups))):
        report = _half_of(progress, number, len(items))
        answers = answer_questions(pipeline, asked, shown, progress=report)
        halves.append([is_right(*pair) for pair in zip(answers, asked, strict=True)])
    return count_rates(groups, *halves)


def held_out_questions(num_per_kind: int, *, seed: int = 0) -> list[tuple[Scene, Question]]:
    """Questions of every kind, kind by kind, each about a held-out scene of its own."""
    return [
        sample_question(random.Random(f"question:{seed}:{kind}:{index}"), kind, "held_out")
        for kind in KINDS
        for index in range(num_per_kind)
    ]


def encode_scenes(tokenizer: UniTok, scenes: Sequence[Scene]) -> Tensor:
    """Codes (N, L, K) of drawn scenes."""
    with torch.inference_mode():
        parts = [
            tokenizer.encode(scene_pixels(batch, tokenizer.config.image_size).to(tokenizer.device))
            for batch in _batches(scenes)
        ]
    return torch.cat(parts)


def answer_questions(
    pipeline: Pipeline,
    questions: Sequence[Question],
    codes: Tensor,
    *,
    progress: Progress | None = None,
) -> list[str]:
    """Greedy answers to one question about each picture of codes (N, L, K)."""
    prompts = [
        build_prompt(pipeline.processor, [_ask(question, own)], name=f"question {number}")
        for number, (question, own) in enumerate(zip(questions, codes, strict=True))
    ]
    return answer_prompts(
        pipeline,
        prompts,
        max_new_tokens=MAX_ANSWER_TOKENS,
        batch_size=BATCH_SIZE,
        progress=progress,
    )


def is_right(answer: str, question: Question) -> bool:
    """Whether an answer is the expected word; case and a final period do not matter."""
    return answer.strip().rstrip(".").lower() == question.answer.lower()


def _ask(question: Question, codes: Tensor) -> Mapping[str, Any]:
    content = [{"type": "image", "codes": codes}, {"type": "text", "text": question.question}]
    return {"role": "user", "content": content}


# ---- drawings ------------------------------------------------------------------------------------


def score_drawings(
    pipeline: Pipeline,
    *,
    num_per_task: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Rates, Rates]:
    """Share of right drawings by GenEval's rules: by task, and by the number of objects asked for.

    One drawing for each held-out prompt. In the first result "all" counts every drawing alike;
    tasks have the same number of items, so it is also the mean of the tasks.
    """
    prompts = held_out_prompts(num_per_task, seed=seed)
    pictures = pipeline.generate_images(
        [prompt["prompt"] for prompt in prompts],
        num_images=1,
        seed=range(seed, seed + len(prompts)),
        batch_size=BATCH_SIZE,
        progress=progress,
    )
    found = [inspect(np.asarray(picture)) for picture in pictures]
    tasks = [prompt["tag"] for prompt in prompts]
    right = [judge_drawing(*pair).correct for pair in zip(found, prompts, strict=True)]
    others = _shuffle_within(prompts, tasks)
    shuffled = [judge_drawing(*pair).correct for pair in zip(found, others, strict=True)]
    by_count = [_object_group(num_objects(prompt)) for prompt in prompts]
    return count_rates(tasks, right, shuffled), count_rates(by_count, right, shuffled)


def num_objects(prompt: Mapping[str, Any]) -> int:
    """How many objects a drawing prompt asks for."""
    return sum(clause["count"] for clause in prompt["include"])


# ---- counting ------------------------------------------------------------------------------------


def count_rates(groups: Sequence[str], right: Sequence[bool], shuffled: Sequence[bool]) -> Rates:
    """Rates of "all" items and of each group, in alphabetical order."""

    def rate(indices: Sequence[int]) -> Rate:
        return Rate(len(indices), sum(right[i] for i in indices), sum(shuffled[i] for i in indices))

    rates = {"all": rate(range(len(groups)))}
    for group in sorted(set(groups)):
        rates[group] = rate([i for i, own in enumerate(groups) if own == group])
    return rates


def _object_group(count: int) -> str:
    return f"{count} object{'s' if count > 1 else ''}"


def _next(items: Sequence[Item]) -> list[Item]:
    return [*items[1:], items[0]]


def _shuffle_within(items: Any, groups: Sequence[str]) -> Any:
    """Each item replaced by the next one of its group; tensors along their first dimension."""
    order = list(range(len(groups)))
    for group in set(groups):
        own = [i for i, other in enumerate(groups) if other == group]
        for place, source in zip(own, _next(own), strict=True):
            order[place] = source
    return items[order] if isinstance(items, Tensor) else [items[i] for i in order]


def _batches(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + BATCH_SIZE] for start in range(0, len(items), BATCH_SIZE)]


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _half_of(progress: Progress | None, number: int, num_items: int) -> Callable[[int, int], None]:
    return lambda done, total: _report(progress, number * num_items + done, 2 * num_items)
