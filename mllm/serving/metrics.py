"""Numbers about the server, in the form that Prometheus reads."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.responses import Response

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The numbers of one server."""

    def __init__(self, *, num_waiting: Callable[[], int], num_running: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "unitok_requests", "Requests answered", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "unitok_request_seconds",
            "Time from a request to the end of its answer",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.pictures = Counter("unitok_pictures_drawn", "Pictures drawn", registry=registry)
        self.tokens = Counter(
            "unitok_tokens_written", "Tokens of answers, visual ones included", registry=registry
        )
        waiting = Gauge("unitok_jobs_waiting", "Jobs that wait for the model", registry=registry)
        waiting.set_function(num_waiting)
        running = Gauge("unitok_jobs", "Jobs that wait or are in work", registry=registry)
        running.set_function(num_running)

    def count_request(self, path: str, status: int, *, seconds: float) -> None:
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def build_response(self) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
