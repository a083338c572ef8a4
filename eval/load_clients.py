"""Clients of a load test: patient, slow and impatient ones, each in a thread of its own."""

import http.client
import json
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eval.load_cases import Case, Kind, read_chat, read_pictures, read_stream

READERS = {
    "chat": read_chat,
    "slow": read_chat,
    "streamed chat": read_stream,
    "pictures": read_pictures,
}
TIMEOUT_SECONDS = 300
SLOW_PIECES = 20  # that a slow client sends its request in
SLOW_PAUSE = 0.05  # seconds between them
MAX_STAY = 0.5  # seconds that an impatient client waits
FULL = 429
HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True)
class Outcome:
    """What came of one request."""

    kind: Kind
    seconds: float
    status: int  # 0: the client left
    problem: str | None = None  # what was wrong with the answer


@dataclass(frozen=True)
class Place:
    """Where the server listens."""

    host: str
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)

    def get(self, path: str) -> str:
        connection = self.connect()
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def ask(place: Place, case: Case, chance: random.Random) -> Outcome:
    """Send one request as its kind of client does, and check the answer."""
    started = time.monotonic()
    try:
        if case.kind == "leaving":
            leave(place, case, chance)
            return Outcome(case.kind, time.monotonic() - started, 0)
        status, body, retry_after = exchange(place, case)
    except (OSError, http.client.HTTPException) as error:
        seconds = time.monotonic() - started
        return Outcome(case.kind, seconds, 0, f"no answer: {type(error).__name__} {error}")
    seconds = time.monotonic() - started
    if status == FULL:
        time.sleep(retry_after)
        return Outcome(case.kind, seconds, status)
    return Outcome(case.kind, seconds, status, find_problem(case, status, body))


def exchange(place: Place, case: Case) -> tuple[int, bytes, float]:
    """Status and body of the answer, and the seconds after which to come back."""
    connection = place.connect()
    try:
        if case.kind == "slow":
            headers = {**HEADERS, "content-length": str(len(case.body))}
            connection.request("POST", case.path, slowly(case.body), headers)
        else:
            connection.request("POST", case.path, case.body, HEADERS)
        answer = connection.getresponse()
        return answer.status, answer.read(), float(answer.headers.get("retry-after", 0))
    finally:
        connection.close()


def slowly(body: bytes) -> Iterator[bytes]:
    size = len(body) // SLOW_PIECES + 1
    for start in range(0, len(body), size):
        time.sleep(SLOW_PAUSE)
        yield body[start : start + size]


def leave(place: Place, case: Case, chance: random.Random) -> None:
    """Ask, and hang up before the answer is complete."""
    connection = place.connect()
    connection.request("POST", case.path, case.body, HEADERS)
    time.sleep(chance.uniform(0, MAX_STAY))
    connection.close()


def find_problem(case: Case, status: int, body: bytes) -> str | None:
    """What is wrong with an answer; None: it is that of the offline pipeline."""
    if case.kind == "malformed":
        if status not in case.expected:
            return f"status {status} for a malformed request"
        error = json.loads(body)["error"]["message"]
        return None if error and "\n" not in error else f"no sentence: {error!r}"
    if status != 200:
        return f"status {status}: {body[:200]!r}"
    try:
        given = READERS[case.kind](body)
    except (ValueError, LookupError, TypeError) as error:
        return f"unreadable answer: {error}"
    return None if given == case.expected else f"another answer than offline: {given!r:.100}"


class Crowd:
    """Clients that ask one request after another until they are told to stop."""

    def __init__(self, place: Place, cases: Sequence[Case], *, num_clients: int, seed: int) -> None:
        self.place = place
        self.by_kind: dict[Kind, list[Case]] = {}
        for case in cases:
            self.by_kind.setdefault(case.kind, []).append(case)
        self.outcomes: list[Outcome] = []
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(random.Random(f"{seed} {number}"),))
            for number in range(num_clients)
        ]

    def run(self, seconds: float) -> Iterator[float]:
        """Give the seconds since the start about once a second, and end when they are over."""
        started = time.monotonic()
        for thread in self._threads:
            thread.start()
        try:
            while (passed := time.monotonic() - started) < seconds:
                yield passed
                time.sleep(min(1.0, seconds - passed))
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()

    def _visit(self, chance: random.Random) -> None:
        kinds = list(self.by_kind)
        while not self._is_over.is_set():
            case = chance.choice(self.by_kind[chance.choice(kinds)])
            self.outcomes.append(ask(self.place, case, chance))


def count_full(outcomes: Sequence[Outcome]) -> int:
    """How often the queue was full."""
    return sum(outcome.status == FULL for outcome in outcomes)


def problems_of(outcomes: Sequence[Outcome]) -> Mapping[str, int]:
    """What was wrong, and how often."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.problem is not None:
            key = f"{outcome.kind}: {outcome.problem}"
            counts[key] = counts.get(key, 0) + 1
    return counts
