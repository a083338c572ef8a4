"""Many clients at a time against `unitok serve`: is every answer right, does memory stay, how long.

python -m eval.load_test --minutes 2
python -m eval.load_test --url http://127.0.0.1:8000 --clients 8 --minutes 0.5
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Annotated
from urllib.parse import urlsplit

import numpy as np
import typer
from rich.table import Table

from eval.load_cases import Case, build_cases
from eval.load_clients import Crowd, Outcome, Place, count_full, problems_of
from mllm.console import announce, out, quiet_libraries, say, user_errors
from mllm.pipeline import Pipeline
from mllm.serving.options import is_loopback

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

SERVE = "from mllm.cli import main; main()"
STARTED = re.compile(r"answers at (http://\S+)/v1")
MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)
STOP_SECONDS = 60
POLL_SECONDS = 0.2
WARM_UP = 0.25  # of the time
GOAL_MB = 1.0  # growth per 100 requests that is no leak
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class MemorySample:
    num_requests: int
    megabytes: float  # that the server holds


@dataclass(frozen=True)
class Load:
    """What came of all requests, and the server's memory meanwhile."""

    outcomes: list[Outcome]
    memory: list[MemorySample]
    seconds: float

    def growth(self) -> float:
        """MB per 100 requests after the warm-up: the slope of a straight line."""
        warm = self.memory[round(len(self.memory) * WARM_UP) :]
        requests = [sample.num_requests for sample in warm]
        if len(set(requests)) < 2:
            raise ValueError("the test was too short to see memory grow; give it more --minutes")
        slope, _ = np.polyfit(requests, [sample.megabytes for sample in warm], 1)
        return float(slope) * 100


def put_load(
    place: Place, cases: Sequence[Case], *, num_clients: int, seconds: float, seed: int = 0
) -> Load:
    """Let clients ask for so many seconds."""
    crowd = Crowd(place, cases, num_clients=num_clients, seed=seed)
    memory = []
    for _ in crowd.run(seconds):
        if found := MEMORY.search(place.get("/metrics")):  # Linux only
            memory.append(MemorySample(len(crowd.outcomes), float(found[1]) / 1e6))
    return Load(crowd.outcomes, memory, seconds)


@contextmanager
def own_server(model: str) -> Iterator[Place]:
    """A server in a process of its own, which must end well."""
    arguments = ["serve", "--port", "0", "--model", model]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([sys.executable, "-c", SERVE, *arguments], stderr=log)
        try:
            yield wait_for_server(process, log)
            process.send_signal(signal.SIGTERM)
            if code := process.wait(STOP_SECONDS):
                raise RuntimeError(f"the server ended with exit code {code} when told to stop")
        finally:
            process.kill()


def wait_for_server(process: "subprocess.Popen[bytes]", log: IO[str]) -> Place:
    """Where the server listens, once it does."""
    while True:
        has_ended = process.poll() is not None
        log.seek(0)
        text = log.read()
        if found := STARTED.search(text):
            return place_of(found[1])
        if has_ended:
            raise RuntimeError(f"the server did not start: {text}")
        time.sleep(POLL_SECONDS)


def place_of(url: str) -> Place:
    """Where a server on this machine listens; others are not to be burdened."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not is_loopback(parts.hostname or "") or parts.port is None:
        raise ValueError(
            f"the server must be on this machine, such as http://127.0.0.1:8000, got {url!r}"
        )
    return Place(str(parts.hostname), parts.port)


def build_table(outcomes: Sequence[Outcome]) -> Table:
    """Requests and their latency, kind by kind."""
    table = Table(title="seconds per request")
    table.add_column("kind")
    for heading in ("requests", *(f"p{percent}" for percent in PERCENTILES), "longest"):
        table.add_column(heading, justify="right")
    for kind in sorted({outcome.kind for outcome in outcomes}):
        seconds = [outcome.seconds for outcome in outcomes if outcome.kind == kind]
        values = [*np.percentile(seconds, PERCENTILES), max(seconds)]
        table.add_row(kind, str(len(seconds)), *(f"{value:.2f}" for value in values))
    return table


def print_load(load: Load) -> None:
    outcomes = load.outcomes
    out.print(build_table(outcomes))
    say(
        f"{len(outcomes)} requests in {load.seconds:.0f} s, {count_full(outcomes)} of them told to "
        "come back (429)"
    )
    if load.memory:
        grown = load.growth()
        verdict = "no leak" if grown < GOAL_MB else "a leak"
        say(
            f"memory {load.memory[-1].megabytes:.0f} MB; after the warm-up {grown:+.3f} MB per 100 "
            f"requests: {verdict} (goal: under {GOAL_MB:g})"
        )
    problems = problems_of(outcomes)
    for problem, count in problems.items():
        say(f"{count} x {problem}")
    say(f"{sum(problems.values())} wrong answers")


@app.command(
    help="Chats, pictures, malformed, slow and impatient requests at a time against a server on "
    "this machine; each answer is compared with the offline pipeline's.\n\n"
    "Example: python -m eval.load_test --clients 64 --minutes 2"
)
def main(
    clients: Annotated[int, typer.Option(min=1, help="At a time")] = 64,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long they ask")] = 2.0,
    model: Annotated[str, typer.Option(help="nano, a folder or a hub name")] = "nano",
    url: Annotated[
        str | None, typer.Option(help="Of a running server; by default one is started")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the clients' choices")] = 0,
) -> None:
    quiet_libraries()
    with user_errors():
        place = None if url is None else place_of(url)
        announce(f"loading {model}")
        cases = build_cases(Pipeline.from_pretrained(model))
        announce(f"{len(cases)} different requests")
        with own_server(model) if place is None else nullcontext(place) as found:
            load = put_load(found, cases, num_clients=clients, seconds=minutes * 60, seed=seed)
    print_load(load)
    if problems_of(load.outcomes) or (load.memory and load.growth() >= GOAL_MB):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
