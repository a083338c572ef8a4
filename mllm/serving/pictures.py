"""/v1/images/generations: pictures of a prompt."""

import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mllm.engine import DrawRequest, Finished, RowDrawn
from mllm.serving.conversation import check_text
from mllm.serving.errors import ApiError, blame_client
from mllm.serving.event_stream import EventStream
from mllm.serving.images import encode_png
from mllm.serving.jobs import RunningJob
from mllm.serving.schemas import PictureParameters
from mllm.serving.service import Service, choose_seed, read_parameters, while_connected


@dataclass(frozen=True)
class Plan:
    """What to draw; picture number i has the seed `seed + i`."""

    requests: list[DrawRequest]
    num_prompt_tokens: int


async def draw_pictures(service: Service, request: Request) -> Response:
    """Pictures of one prompt."""
    with service.jobs.reading(), blame_client():
        parameters = await read_parameters(request, PictureParameters)
        service.check_model(parameters.model)
        plan = await service.in_thread(partial(plan_pictures, parameters, service))
    jobs = service.jobs.start(plan.requests)
    if parameters.stream:
        events = stream_picture(service, plan, jobs[0], num_partial=parameters.partial_images)
        return EventStream(events, on_end=partial(service.jobs.end, jobs), has_names=True)
    try:
        pictures = await while_connected(request, finish_all(jobs))
        service.metrics.pictures.inc(len(pictures))
        return JSONResponse(await build_answer(service, plan, pictures))
    finally:
        service.jobs.end(jobs)


def plan_pictures(parameters: PictureParameters, service: Service) -> Plan:
    """The requests for the engine; raises for what cannot be drawn."""
    pipeline, limits = service.pipeline, service.options.limits
    if parameters.n > limits.drawings:
        raise ApiError(
            400,
            f"n may be at most {limits.drawings}, got {parameters.n}; ask again for more",
            param="n",
        )
    size = size_of(service)
    if parameters.size not in ("auto", size):
        raise ApiError(
            400,
            f"size must be {size} or auto for this model, got {parameters.size[:20]!r}",
            param="size",
        )
    check_text(parameters.prompt, limits)
    sampling = pipeline.build_sampling(
        guidance_scale=parameters.guidance_scale,
        temperature=parameters.temperature,
        top_k=parameters.top_k,
        top_p=parameters.top_p,
    )
    first = choose_seed(parameters.seed)
    row = pipeline.encode_prompt(parameters.prompt)
    with_previews = parameters.partial_images > 0
    requests = [
        DrawRequest(parameters.prompt, first + number, sampling, preview=with_previews)
        for number in range(parameters.n)
    ]
    return Plan(requests, len(row))


async def finish_all(jobs: Sequence[RunningJob]) -> list[Image.Image]:
    return [await job.picture() for job in jobs]


async def build_answer(
    service: Service, plan: Plan, pictures: Sequence[Image.Image]
) -> dict[str, Any]:
    """The pictures in OpenAI's form, each with its seed."""
    encoded = [await service.in_thread(partial(encode_png, picture)) for picture in pictures]
    return {
        "created": int(time.time()),
        "data": [
            {"b64_json": data, "seed": request.seed}
            for data, request in zip(encoded, plan.requests, strict=True)
        ],
        **describe(service),
        "usage": count_usage(service, plan),
    }


async def stream_picture(
    service: Service, plan: Plan, job: RunningJob, *, num_partial: int
) -> AsyncIterator[dict[str, Any]]:
    """The picture while it is drawn, and then the whole, as OpenAI's events."""
    shape = {"created_at": int(time.time()), **describe(service), "quality": "auto"}
    num_shown = 0
    while not isinstance(event := await job.next_event(), Finished):
        if not isinstance(event, RowDrawn) or event.preview is None:
            continue
        if event.row in partial_rows(event.num_rows, num_partial):
            data = await service.in_thread(partial(encode_png, event.preview))
            head = {"type": "image_generation.partial_image", "partial_image_index": num_shown}
            yield {**head, "b64_json": data, **shape}
            num_shown += 1
    assert isinstance(event.result, Image.Image)
    service.metrics.pictures.inc()
    data = await service.in_thread(partial(encode_png, event.result))
    seed = plan.requests[0].seed
    head = {"type": "image_generation.completed", "b64_json": data, "seed": seed}
    yield {**head, **shape, "usage": count_usage(service, plan)}


def partial_rows(num_rows: int, num_partial: int) -> set[int]:
    """The rows, 1 to `num_rows`, after which the picture is shown."""
    return {math.ceil(num_rows * part / (num_partial + 1)) for part in range(1, num_partial + 1)}


def size_of(service: Service) -> str:
    return f"{service.pipeline.image_size}x{service.pipeline.image_size}"


def describe(service: Service) -> dict[str, str]:
    """What OpenAI's form says about a picture."""
    return {"size": size_of(service), "output_format": "png", "background": "opaque"}


def count_usage(service: Service, plan: Plan) -> dict[str, Any]:
    num_prompt = plan.num_prompt_tokens
    num_visual = service.pipeline.processor.num_visual_tokens * len(plan.requests)
    return {
        "input_tokens": num_prompt,
        "input_tokens_details": {"text_tokens": num_prompt, "image_tokens": 0},
        "output_tokens": num_visual,
        "total_tokens": num_prompt + num_visual,
    }
