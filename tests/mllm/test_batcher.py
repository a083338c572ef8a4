"""Programs that run side by side give what each gives alone, with few calls of the decoder."""

import pytest
import torch

from mllm.answer import TextSettings
from mllm.batcher import Batcher
from mllm.generation import generate_codes
from mllm.pipeline import Pipeline
from mllm.sampling import SamplingParams
from tests.mllm.tiny_pipeline import build_tiny_pipeline

GUIDED = SamplingParams(guidance_scale=3)
PLAIN = SamplingParams(guidance_scale=1, top_k=8)
PROMPTS = ["a star", "a red star left of a blue circle", "a", "two rings", "a black square"]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build_tiny_pipeline(grid=(3, 3))


def draw(pipeline: Pipeline, prompt: str, *, seed: int = 0, sampling=GUIDED, on_row=None):
    return pipeline.drawing(pipeline.encode_prompt(prompt), sampling, seed=seed, on_row=on_row)


def answer(pipeline: Pipeline, question: str, *, length: int = 12, **settings):
    messages = [{"role": "user", "content": question}]
    chosen = TextSettings(max_new_tokens=length, **settings)
    return pipeline.answering(messages, chosen, emit=lambda piece: None)


def alone(pipeline: Pipeline, program):
    (result,) = Batcher(pipeline.model).run_all([program], max_active=1)
    return result


def finish(batcher: Batcher, *, max_steps: int = 1000) -> None:
    for _ in range(max_steps):
        if not batcher.running:
            return
        batcher.step()
    raise AssertionError(f"still running after {max_steps} steps")


def test_a_picture_is_that_of_generate_codes(pipeline):
    rows = [pipeline.processor.encode_text_to_image(prompt) for prompt in ("a star", None)]
    batch = pipeline.processor.pad(rows, side="left")
    expected = generate_codes(
        pipeline.model, batch.input_ids, batch.attention_mask, sampling=GUIDED, seeds=[4]
    )
    assert torch.equal(alone(pipeline, draw(pipeline, "a star", seed=4)), expected[0])


def test_eight_staggered_requests_take_few_calls_of_the_decoder(pipeline):
    def programs():
        for number in range(4):
            yield draw(pipeline, PROMPTS[number], seed=number)
            yield answer(pipeline, PROMPTS[number], length=30)

    lengths, expected = [], []
    for program in programs():
        batcher = Batcher(pipeline.model)
        expected += batcher.run_all([program], max_active=1)
        lengths.append(batcher.rows.num_reads)
    together, runs = Batcher(pipeline.model), []
    for program in programs():
        runs.append(together.start(program))
        together.step()
    finish(together)
    assert together.rows.num_reads < 1.5 * max(lengths)
    assert sum(lengths) > 3 * max(lengths)  # one after another it would be that many
    for run, own in zip(runs, expected, strict=True):
        if isinstance(own, torch.Tensor):
            assert torch.equal(run.result, own)
        else:
            assert run.result.text == own.text


@pytest.mark.parametrize("sampling", [GUIDED, PLAIN])
def test_a_picture_that_joins_midway_is_that_drawn_alone(pipeline, sampling):
    batcher = Batcher(pipeline.model)
    runs = []
    for seed, prompt in enumerate(PROMPTS):
        runs.append(batcher.start(draw(pipeline, prompt, seed=seed, sampling=sampling)))
        for _ in range(2):
            batcher.step()
    finish(batcher)
    for seed, (run, prompt) in enumerate(zip(runs, PROMPTS, strict=True)):
        expected = alone(pipeline, draw(pipeline, prompt, seed=seed, sampling=sampling))
        assert torch.equal(run.result, expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_that_joins_midway_is_that_given_alone(pipeline, temperature):
    batcher = Batcher(pipeline.model)
    runs = []
    for seed, question in enumerate(PROMPTS):
        runs.append(batcher.start(answer(pipeline, question, seed=seed, temperature=temperature)))
        for _ in range(2):
            batcher.step()
    finish(batcher)
    for seed, (run, question) in enumerate(zip(runs, PROMPTS, strict=True)):
        program = answer(pipeline, question, seed=seed, temperature=temperature)
        assert run.result.text == alone(pipeline, program).text


def test_a_picture_is_bitwise_the_same_beside_others_of_equal_number(pipeline):
    hidden = []
    for other in ("a red star", "a blue ring"):
        batcher = Batcher(pipeline.model)
        batcher.start(draw(pipeline, "two rings", seed=3))
        batcher.start(draw(pipeline, other, seed=len(other)))
        for _ in range(8):
            batcher.step()
        hidden.append(batcher.rows.hidden(batcher.rows.rows[:2]))
    assert torch.equal(*hidden)


def test_a_long_prompt_is_read_in_parts_and_holds_nobody_up(pipeline, monkeypatch):
    prompt = " ".join(["a red star"] * 8)
    expected = alone(pipeline, draw(pipeline, prompt))
    other = alone(pipeline, draw(pipeline, "a star"))
    monkeypatch.setattr("mllm.batcher.MAX_POSITIONS", 5)
    batcher = Batcher(pipeline.model)
    runs = [batcher.start(draw(pipeline, each)) for each in (prompt, "a star")]
    while not runs[1].has_ended:
        batcher.step()
    assert not runs[0].has_ended
    finish(batcher)
    assert torch.equal(runs[0].result, expected)
    assert torch.equal(runs[1].result, other)


def test_a_stopped_program_frees_its_places_at_once(pipeline):
    batcher = Batcher(pipeline.model)
    stopped, other = (batcher.start(draw(pipeline, prompt)) for prompt in PROMPTS[:2])
    for _ in range(4):
        batcher.step()
    assert (len(batcher.rows.rows), len(batcher.pictures.pictures)) == (4, 2)
    batcher.stop(stopped)
    assert (len(batcher.rows.rows), len(batcher.pictures.pictures)) == (2, 1)
    finish(batcher)
    assert torch.equal(other.result, alone(pipeline, draw(pipeline, PROMPTS[1])))
    assert (batcher.rows.rows, batcher.pictures.pictures) == ([], [])


def test_a_program_that_fails_fails_alone(pipeline):
    def fail(row):
        raise ValueError("no more rows")

    batcher = Batcher(pipeline.model)
    broken = batcher.start(draw(pipeline, "a star", on_row=fail))
    refused = batcher.start(answer(pipeline, "star " * 200))
    good = batcher.start(draw(pipeline, "a star"))
    finish(batcher)
    assert str(broken.error) == "no more rows"
    assert "tokens long" in str(refused.error)
    assert torch.equal(good.result, alone(pipeline, draw(pipeline, "a star")))
    assert batcher.rows.rows == []


def test_run_all_raises_the_first_error_and_stops_the_others(pipeline):
    batcher = Batcher(pipeline.model)
    programs = [draw(pipeline, "a star"), answer(pipeline, "star " * 200)]
    with pytest.raises(ValueError, match="tokens long"):
        batcher.run_all(programs, max_active=2)
    assert (batcher.running, batcher.rows.rows) == ([], [])


def test_buffers_of_programs_that_left_are_used_again(pipeline):
    batcher = Batcher(pipeline.model)
    sizes = []
    for _ in range(3):
        batcher.run_all([draw(pipeline, "a star") for _ in range(6)], max_active=2)
        layer = batcher.rows.buffers.layers[0]
        sizes.append((layer.keys_RGTE.data_ptr(), batcher.rows.buffers.num_rows))
    assert sizes[0] == sizes[1] == sizes[2]
    assert sizes[0][1] == 4
