"""/v1/chat/completions: answers of text and pictures, whole or in pieces.

OpenAI's form has no place for a picture in an answer. Here they stand in `images` of a message or
of a piece (`delta`), each as {"type": "image_url", "index": ..., "image_url": {"url": a data URL}}.
"""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mllm.answer import ChatAnswer, TextSettings
from mllm.engine import ChatRequest, Finished
from mllm.serving.conversation import Conversation, check_amounts, fetch_pictures, read_conversation
from mllm.serving.errors import ApiError, blame_client
from mllm.serving.event_stream import EventStream
from mllm.serving.images import as_data_url
from mllm.serving.jobs import RunningJob
from mllm.serving.schemas import ChatMessage, ChatParameters
from mllm.serving.service import Service, choose_seed, read_parameters, while_connected

DEFAULT_TOKENS = 256


async def answer_chat(service: Service, request: Request) -> Response:
    """The next message of a conversation."""
    with service.jobs.reading():
        parameters = await read_parameters(request, ChatParameters)
        service.check_model(parameters.model)
        settings = build_settings(parameters, service.pipeline.processor.context_length)
        conversation = await receive_conversation(service, parameters.messages)
    jobs = service.jobs.start([ChatRequest(conversation.messages, settings)])
    writer = Writer(service, conversation, seed=settings.seed)
    if parameters.stream:
        events = writer.stream(jobs[0], with_usage=parameters.stream_options.include_usage)
        return EventStream(events, on_end=partial(service.jobs.end, jobs))
    try:
        answer = await while_connected(request, jobs[0].answer())
        return JSONResponse(await writer.write(answer))
    finally:
        service.jobs.end(jobs)


async def receive_conversation(service: Service, messages: Sequence[ChatMessage]) -> Conversation:
    """The conversation, its pictures fetched where that is switched on."""
    limits = service.options.limits
    with blame_client():
        check_amounts(messages, limits)
        fetched = await fetch_pictures(messages, service.options)
        read = partial(
            read_conversation, messages, service.pipeline, fetched=fetched, limits=limits
        )
        return await service.in_thread(read)


def build_settings(parameters: ChatParameters, context_length: int) -> TextSettings:
    """How the answer is written."""
    if parameters.max_tokens is not None and parameters.max_completion_tokens is not None:
        raise ApiError(400, "give max_completion_tokens or the older max_tokens, not both")
    longest = parameters.max_completion_tokens or parameters.max_tokens or DEFAULT_TOKENS
    given = parameters.max_completion_tokens or parameters.max_tokens
    if given is not None and given > context_length:
        raise ApiError(
            400,
            f"max_tokens may be at most {context_length}, the model's context, got {given}",
            param="max_tokens",
        )
    return TextSettings(
        max_new_tokens=longest,
        temperature=parameters.temperature,
        top_k=parameters.top_k,
        top_p=parameters.top_p,
        seed=choose_seed(parameters.seed),
        max_images=parameters.max_images,
    )


class AnswerText:
    """Pieces of an answer's texts, so that together they are its `text`."""

    def __init__(self) -> None:
        self._held = ""  # blanks that count only if more follows
        self._is_empty = True
        self._begins_part = False

    def add(self, piece: str) -> str:
        """What of it may be sent now."""
        if self._begins_part and not self._is_empty:
            self._held += " "
        self._begins_part = False
        text = self._held + piece
        if self._is_empty:
            text = text.lstrip()
        ready = text.rstrip()
        self._held = text[len(ready) :]
        self._is_empty = self._is_empty and not ready
        return ready

    def end_part(self) -> None:
        """A picture stands between what came and what comes."""
        self._begins_part = True


class Writer:
    """One answer in OpenAI's form."""

    def __init__(self, service: Service, conversation: Conversation, *, seed: int) -> None:
        self.service = service
        self.conversation = conversation
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": service.options.model_name,
            "system_fingerprint": service.fingerprint,
            "seed": seed,  # ours: asks for the same answer again
        }

    async def write(self, answer: ChatAnswer) -> dict[str, Any]:
        """The whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.images:
            message["images"] = [
                await self._show(picture, index) for index, picture in enumerate(answer.images)
            ]
        choice = {
            "index": 0,
            "message": {**message, **notice_of(answer)},
            "logprobs": None,
            "finish_reason": reason_of(answer),
        }
        usage = self._count(answer)
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": usage}

    async def stream(self, job: RunningJob, *, with_usage: bool) -> AsyncIterator[dict[str, Any]]:
        """The answer in pieces."""
        yield self._piece({"role": "assistant", "content": ""})
        text, num_pictures = AnswerText(), 0
        while not isinstance(event := await job.next_event(), Finished):
            if isinstance(event, str):
                if ready := text.add(event):
                    yield self._piece({"content": ready})
            elif isinstance(event, Image.Image):
                text.end_part()
                yield self._piece({"images": [await self._show(event, num_pictures)]})
                num_pictures += 1
        answer = event.result
        assert isinstance(answer, ChatAnswer)
        yield self._piece(notice_of(answer), finish_reason=reason_of(answer))
        usage = self._count(answer)
        if with_usage:
            yield {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage}

    def _piece(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    async def _show(self, picture: Image.Image, index: int) -> dict[str, Any]:
        url = await self.service.in_thread(partial(as_data_url, picture))
        return {"type": "image_url", "index": index, "image_url": {"url": url}}

    def _count(self, answer: ChatAnswer) -> dict[str, int]:
        prompt, written = self.conversation.num_tokens, answer.num_tokens
        self.service.metrics.tokens.inc(written)
        self.service.metrics.pictures.inc(len(answer.images))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }


def reason_of(answer: ChatAnswer) -> str:
    return "length" if answer.is_cut else "stop"


def notice_of(answer: ChatAnswer) -> dict[str, str]:
    """Why the answer ends where the model wanted to draw, if it does."""
    return {} if answer.notice is None else {"notice": answer.notice}
