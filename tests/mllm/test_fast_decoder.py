"""The decoder over static buffers computes what the stock LLaMA stack does."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from mllm.fast_decoder import SamePosition, build_rotation, read_positions
from mllm.row_buffers import RowBuffers
from mllm.running_rows import Row, RunningRows

# Measured 2e-6 on CPU in fp32.
TOLERANCE = {"atol": 1e-5, "rtol": 0}


def build_stack(**changes) -> LlamaModel:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
    }
    return LlamaModel(LlamaConfig(**(sizes | changes))).eval()


@pytest.fixture
def stack() -> LlamaModel:
    return build_stack()


def random_embeds(*lengths: int) -> list[torch.Tensor]:
    return [torch.randn(length, 32) for length in lengths]


@torch.no_grad()
def stock(stack: LlamaModel, embeds: torch.Tensor) -> torch.Tensor:
    return stack(inputs_embeds=embeds[None], use_cache=False).last_hidden_state[0]


@torch.no_grad()
def read_in_parts(running: RunningRows, whole: list[torch.Tensor], *parts: list[int]) -> list[Row]:
    """Let row i read the parts of whole[i] step by step; the last one leaves its hidden state."""
    rows = [Row() for _ in whole]
    for row in rows:
        running.open(row)
    for step in zip(*parts, strict=True):
        news = [
            (row, embeds[row.length : row.length + count])
            for row, embeds, count in zip(rows, whole, step, strict=True)
            if count
        ]
        running.read(news)
    return rows


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 2},
        {"head_dim": 16},
        {"attention_bias": True, "mlp_bias": True},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ],
)
def test_rows_of_any_length_read_as_in_the_stock_stack(changes):
    stack = build_stack(**changes)
    running = RunningRows(stack)
    whole = random_embeds(9, 5, 80)
    # Long readings beside single positions, and single positions of all rows.
    parts = [[6, 1, 1, 1], [1, 1, 2, 1], [40, 38, 1, 1]]
    rows = read_in_parts(running, whole, *parts)
    expected = torch.stack([stock(stack, embeds)[-1] for embeds in whole])
    torch.testing.assert_close(running.hidden(rows), expected, **TOLERANCE)


def test_one_position_in_each_row_reads_as_in_the_stock_stack(stack):
    embeds_RTD = torch.randn(3, 4, 32)
    buffers = RowBuffers(stack, num_rows=5, num_positions=4)
    hidden = []
    with torch.no_grad():
        for position in range(4):
            rotation = build_rotation(stack, torch.tensor([position]))
            places = SamePosition(position, rotation)
            hidden.append(
                read_positions(stack, embeds_RTD[:, position], places=places, buffers=buffers)
            )
    expected = torch.stack([stock(stack, embeds) for embeds in embeds_RTD])
    torch.testing.assert_close(torch.stack(hidden, dim=1), expected, **TOLERANCE)


def test_a_row_is_bitwise_the_same_whatever_its_neighbours_hold(stack):
    own = random_embeds(9)[0]
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        running = RunningRows(stack)
        rows = read_in_parts(
            running, [own, *random_embeds(9, 9)], [6, 1, 1, 1], *[[5, 2, 1, 1]] * 2
        )
        results.append(running.hidden(rows[:1]))
    assert torch.equal(*results)


def test_bfloat16_reads_as_the_stock_stack_does(stack):
    stack = stack.to(torch.bfloat16)
    (embeds,) = random_embeds(9)
    embeds = embeds.bfloat16()
    running = RunningRows(stack)
    rows = read_in_parts(running, [embeds], [6, 1, 1, 1])
    difference = (running.hidden(rows)[0] - stock(stack, embeds)[-1]).abs().max()
    # Measured 0.023 for values up to 2.5: bfloat16 has 8 bits.
    assert difference < 0.1, difference


def test_a_row_that_moves_into_a_free_place_reads_on(stack):
    running = RunningRows(stack)
    whole = random_embeds(6, 6, 6)
    rows = read_in_parts(running, whole, [3, 1], [2, 1], [4, 1])
    running.close(rows[0])
    assert [row.number for row in rows] == [None, 1, 0]
    expected = stock(stack, whole[2][:5])[-1]
    torch.testing.assert_close(running.hidden(rows[2:])[0], expected, **TOLERANCE)
    with torch.no_grad():
        running.read([(rows[2], whole[2][5:])])
    expected = stock(stack, whole[2])[-1]
    torch.testing.assert_close(running.hidden(rows[2:])[0], expected, **TOLERANCE)


def test_the_buffers_of_rows_that_left_are_used_again(stack):
    running = RunningRows(stack)
    addresses = []
    for _ in range(3):
        rows = read_in_parts(running, random_embeds(9, 9), [8, 1], [8, 1])
        addresses.append([layer.keys_RGTE.data_ptr() for layer in running.buffers.layers])
        for row in rows:
            running.close(row)
    assert addresses[0] == addresses[1] == addresses[2]
    assert (running.rows, running.buffers.num_rows) == ([], 2)


def test_what_a_buffer_held_before_is_not_seen(stack):
    running = RunningRows(stack)
    whole = random_embeds(7, 3)
    for embeds in whole:
        (row,) = read_in_parts(running, [embeds], [len(embeds) - 1, 1])
        expected = stock(stack, embeds)[-1]
        torch.testing.assert_close(running.hidden([row])[0], expected, **TOLERANCE)
        running.close(row)


def test_buffers_made_in_inference_mode_serve_outside_of_it(stack):
    running = RunningRows(stack)
    whole = random_embeds(3, 3)
    with torch.inference_mode():
        (row,) = read_in_parts(running, whole[:1], [2, 1])
        running.close(row)
    (row,) = read_in_parts(running, whole[1:], [2, 1])
    expected = stock(stack, whole[1])[-1]
    torch.testing.assert_close(running.hidden([row])[0], expected, **TOLERANCE)


def test_rows_that_have_read_nothing_come_and_go(stack):
    running, rows = RunningRows(stack), [Row() for _ in range(3)]
    for row in rows:
        running.open(row)
    running.close(rows[0])
    assert [row.number for row in rows] == [None, 1, 0]
