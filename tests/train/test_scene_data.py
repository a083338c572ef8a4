"""What a training row of the drawn world asks and shows."""

import random
from collections import Counter

import torch

from eval.scenes import sample_scene
from mllm.processor import Processor
from train.scene_data import KEPT_FOR_QUESTIONS, BatchMix, MLLMBatches, training_example
from train.scene_lessons import (
    LISTINGS,
    choose_questions,
    drill,
    listing,
    places,
    position_in_steps,
)


class RandomCodes:
    """Stands in for extracted codes."""

    examples = range(400)
    dialogue_ends = range(1)

    def example(self, index):
        return torch.randint(256, (16, 8), generator=torch.Generator().manual_seed(index))


def build_batches(**mix):
    numbers = {"drawings": 0, "question_rows": 0, "dialogues": 0, **mix}
    return MLLMBatches(
        Processor.from_pretrained("nano"), RandomCodes(), BatchMix(**numbers), seed=0
    )


def choices(number):
    for index in range(number):
        scene, _ = training_example(index)
        yield choose_questions(scene, random.Random(index))


def test_a_description_is_never_followed_by_questions_that_it_answers():
    described = [row for row in choices(300) if any(q.kind == "description" for q in row)]
    assert 0 < len(described) < 100
    assert all(len(row) == 1 for row in described)


def test_no_row_asks_the_same_twice():
    for row in choices(200):
        asked = [item.question for item in row]
        assert len(asked) == len(set(asked))


def test_kinds_that_take_two_objects_are_asked_most_where_there_are_two():
    kinds = Counter()
    for index in range(300):
        scene = sample_scene(random.Random(index), num_objects=3)
        kinds.update(item.kind for item in choose_questions(scene, random.Random(index)))
    assert kinds["comparison"] > kinds["color"]
    assert kinds["position"] > kinds["existence"]


def test_a_listing_names_every_object_in_the_order_of_its_place():
    seen = set()
    for index in range(40):
        scene = sample_scene(random.Random(index))
        asked = listing(scene, random.Random(index))
        axis = next(axis for axis, text in LISTINGS.items() if text == asked.question)
        seen.add(axis)
        placed = sorted(scene.objects, key=lambda item: getattr(item, axis))
        assert asked.answer.split(", ") == [f"{o.size} {o.color} {o.shape}" for o in placed]
    assert seen == set(LISTINGS)


def test_a_place_is_told_in_quarters_of_the_sides_for_objects_that_can_be_told_apart():
    for index in range(40):
        scene = sample_scene(random.Random(index))
        asked = places(scene, random.Random(index))
        told = {question.answer for question in asked}
        columns = ["far left", "left", "right", "far right"]
        rows = ["top", "high", "low", "bottom"]
        true = {f"{columns[int(4 * o.x)]}, {rows[int(4 * o.y)]}" for o in scene.objects}
        assert told <= true
        looks = Counter((o.size, o.color, o.shape) for o in scene.objects)
        assert len(asked) == sum(count == 1 for count in looks.values())


def test_a_drill_asks_a_few_questions_about_places():
    kinds = Counter()
    for index in range(300):
        scene, _ = training_example(index)
        row = drill(scene, random.Random(index))
        kinds[" ".join(item.kind for item in row)] += 1
    single = {"place", "position", "listing"}
    several = {"place place", "position position", "place place position"}
    assert several <= set(kinds) <= single | several


def test_a_position_in_steps_is_told_after_the_place_of_both_objects():
    answered = Counter()
    for index in range(300):
        scene, _ = training_example(index)
        rng = random.Random(index)
        if not (row := position_in_steps(scene, rng)):
            continue
        first, second, relation = row
        names = [item.question[len("where in the picture is the ") : -1] for item in row[:2]]
        assert first.question != second.question
        # A reference without a shape may be called an object in one question, a shape in the other.
        assert all(name.split()[0] in relation.question for name in names)
        answered[relation.answer] += 1
    assert set(answered) == {"left", "right", "above", "below", "yes", "no"}


def test_rows_of_a_step_depend_on_its_number_alone_and_are_padded_by_their_kind():
    batches = build_batches(drawings=2, drills=3, question_rows=4)
    first, again, other = batches[5], batches[5], batches[6]
    assert [len(batch.input_ids) for batch, _ in first] == [2, 3, 4]
    for (batch, codes), (same, same_codes), (_, other_codes) in zip(
        first, again, other, strict=True
    ):
        assert torch.equal(batch.input_ids, same.input_ids)
        assert torch.equal(codes, same_codes)
        assert not torch.equal(codes, other_codes)


def test_pictures_with_one_object_are_chosen_less_often():
    batches, rng = build_batches(), random.Random(0)
    chosen = [batches._choose(rng, KEPT_FOR_QUESTIONS) for _ in range(600)]
    share = sum(len(training_example(index)[0].objects) == 1 for index in chosen) / len(chosen)
    singles = sum(len(training_example(i)[0].objects) == 1 for i in range(400)) / 400
    assert 0.3 * singles < share < 0.85 * singles
