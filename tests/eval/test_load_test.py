"""A short load test, and one that must fail."""

from dataclasses import replace
from random import Random

import pytest

from eval.load_cases import Case, build_cases
from eval.load_clients import Outcome, Place, ask, find_problem, problems_of
from eval.load_test import Load, MemorySample, place_of, put_load
from mllm.pipeline import Pipeline
from tests.mllm.serving.live_server import live_server

KINDS = {"chat", "streamed chat", "pictures", "malformed", "slow", "leaving"}


@pytest.fixture(scope="module")
def nano() -> Pipeline:
    return Pipeline.from_pretrained("nano")


@pytest.fixture(scope="module")
def cases(nano) -> list[Case]:
    return build_cases(nano, num_pictures=1)


def test_mixed_clients_get_the_answers_of_the_offline_pipeline(nano, cases):
    with live_server(nano, max_waiting=4) as server:
        load = put_load(place_of(server.url), cases, num_clients=8, seconds=6)
        with server.http() as client:
            assert client.get("/health").json() == {"status": "ok"}
    assert {case.kind for case in cases} == KINDS
    assert len({outcome.kind for outcome in load.outcomes}) > 3
    assert problems_of(load.outcomes) == {}
    assert load.memory[-1].megabytes > 100


def test_a_wrong_answer_is_found(nano, cases):
    wrong = [replace(case, expected="nonsense") for case in cases if case.kind == "chat"]
    with live_server(nano) as server:
        load = put_load(place_of(server.url), wrong, num_clients=1, seconds=0.5)
    assert all("another answer than offline" in each for each in problems_of(load.outcomes))
    assert problems_of(load.outcomes)


def test_a_server_that_is_not_there_is_a_problem(cases):
    outcome = ask(Place("127.0.0.1", 9), cases[0], Random(0))
    assert outcome.problem.startswith("no answer: ConnectionRefusedError")


@pytest.mark.parametrize(
    ("kind", "status", "body", "problem"),
    [
        ("malformed", 200, b"{}", "status 200 for a malformed request"),
        ("malformed", 400, b'{"error": {"message": "a\\nb"}}', "no sentence"),
        ("malformed", 400, b'{"error": {"message": "n is wrong"}}', None),
        ("chat", 500, b"", "status 500"),
        ("chat", 200, b"[]", "unreadable answer"),
        ("streamed chat", 200, b"data: {}\n\n", "unreadable answer: the stream ends with"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(kind, status, body, problem):
    expected = (400,) if kind == "malformed" else "text"
    found = find_problem(Case(kind, "/", b"", expected), status, body)
    assert (found is None) if problem is None else found.startswith(problem)


def test_growth_of_memory_is_counted_after_the_warm_up():
    samples = [(0, 100.0), (10, 500.0), (20, 500.0), (40, 500.4), (60, 500.8), (80, 501.2)]
    load = Load([], [MemorySample(*each) for each in [(0, 90.0), (5, 400.0), *samples[1:]]], 7)
    assert load.growth() == pytest.approx(2.0, abs=0.2)
    with pytest.raises(ValueError, match="too short to see memory grow"):
        Load([], [MemorySample(1, 5.0)], 1).growth()


def test_only_servers_on_this_machine_are_put_under_load():
    assert place_of("http://127.0.0.1:8000") == Place("127.0.0.1", 8000)
    for url in ("http://example.org:80", "http://localhost", "https://127.0.0.1:1", "nonsense"):
        with pytest.raises(ValueError, match="the server must be on this machine"):
            place_of(url)


def test_clients_that_leave_are_no_problem():
    assert problems_of([Outcome("leaving", 0.1, 0)]) == {}
