"""The web application: addresses of the API, and what every request passes on its way to them."""

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mllm.engine import Engine
from mllm.serving.access import Access
from mllm.serving.chat import answer_chat
from mllm.serving.errors import ErrorAnswers, explain_http
from mllm.serving.jobs import Jobs
from mllm.serving.limits import ConnectionLimits
from mllm.serving.metrics import Metrics
from mllm.serving.options import ServerOptions
from mllm.serving.pictures import draw_pictures
from mllm.serving.record import Record
from mllm.serving.service import Service

PATHS = ("/v1/chat/completions", "/v1/images/generations", "/v1/models", "/health", "/metrics")
OPEN_PATHS = ("/health",)


def build_service(engine: Engine, options: ServerOptions) -> Service:
    """The engine behind the addresses of the API."""
    seconds = options.limits.answer_seconds
    jobs = Jobs(engine, max_reading=options.max_waiting, answer_seconds=seconds)
    metrics = Metrics(num_waiting=lambda: engine.num_waiting, num_running=lambda: len(jobs))
    fingerprint = "-".join(engine.pipeline.fingerprints().values())
    return Service(engine.pipeline, jobs, metrics, options, fingerprint)


def build_app(service: Service) -> FastAPI:
    """The application; no page of it loads anything from elsewhere."""
    app = FastAPI(
        openapi_url=None,  # its pages fetch their scripts from other machines
        middleware=build_middleware(service),
        exception_handlers={HTTPException: answer_http_error},
    )
    add_api(app, service)
    if service.options.has_page:
        from mllm.web import mount_page  # takes seconds

        mount_page(app, service.jobs.engine, service.pipeline)
    return app


def build_middleware(service: Service) -> list[Middleware]:
    """From the outside to the inside."""
    options = service.options
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(options.allow_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
    )
    return [
        Middleware(Record, metrics=service.metrics, paths=PATHS),
        *([cors] if options.allow_origins else []),
        Middleware(ErrorAnswers),
        Middleware(Access, options=options, open_paths=OPEN_PATHS),
        Middleware(ConnectionLimits, limits=options.limits),
    ]


def add_api(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await answer_chat(service, request)

    @app.post("/v1/images/generations")
    async def images_generations(request: Request) -> Response:
        return await draw_pictures(service, request)

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [describe_model(service)]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        service.check_model(name)
        return JSONResponse(describe_model(service))

    @app.get("/health")
    async def health() -> Response:
        if service.jobs.is_stopping:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        return service.metrics.build_response()


def describe_model(service: Service) -> dict[str, object]:
    return {
        "id": service.options.model_name,
        "object": "model",
        "created": service.started,
        "owned_by": "unitok",
    }


async def answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return explain_http(error).build_response()
