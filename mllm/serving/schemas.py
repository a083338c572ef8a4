"""What clients may send: OpenAI's parameters and a few of our own.

A parameter that we cannot honour is refused unless it has a value that changes nothing.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mllm.generation import MAX_SEED

MAX_DRAWINGS = 100  # so that no seed of a request overflows
MAX_MESSAGES = 1000
MAX_PARTS = 1000
MAX_PARTIAL_IMAGES = 3  # as OpenAI's

# Values of parameters that we cannot honour at which they change nothing; null always does.
NEUTRAL_IN_CHAT: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ([], ""),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"], ["image", "text"], ["text", "image"]),
    "audio": (),
    "prediction": (),
    "moderation": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
NEUTRAL_IN_PICTURES: dict[str, tuple[Any, ...]] = {
    "response_format": ("b64_json",),
    "output_format": ("png",),
    "output_compression": (100,),
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
    "quality": ("auto", "standard"),
    "style": (),
}
# Parameters that never change an answer.
IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
)


def drop_neutral(values: Any, neutral: Mapping[str, tuple[Any, ...]]) -> Any:
    """`values` without what changes nothing; raises ValueError for what we cannot honour."""
    if not isinstance(values, dict):
        return values
    for name, harmless in neutral.items():
        value = values.get(name)
        if value is not None and value not in harmless:
            choices = " or ".join(f"{each!r}" for each in harmless)
            remedy = f"leave it out, or set it to {choices}" if harmless else "leave it out"
            raise ValueError(f"this server cannot honour the parameter {name}; {remedy}")
    return {
        name: value
        for name, value in values.items()
        if value is not None and name not in neutral and name not in IGNORED
    }


class Parameters(BaseModel):
    """Strict: a typo or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ImageURL(Parameters):
    url: str
    detail: Literal["auto", "low", "high"] | None = None  # the model sees one size only


class TextPart(Parameters):
    type: Literal["text"]
    text: str


class ImagePart(Parameters):
    type: Literal["image_url"]
    image_url: ImageURL
    index: int | None = None  # as in our own answers


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="type")]


def as_parts(content: Any) -> Any:
    """A bare text as a list of one part."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content


Content: TypeAlias = Annotated[list[Part], BeforeValidator(as_parts), Field(max_length=MAX_PARTS)]


class Instructions(Parameters):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class Question(Parameters):
    role: Literal["user"]
    content: Content
    name: str | None = None


class Answer(Parameters):
    """An earlier answer, as this server gave it: pictures may stand in `images`."""

    role: Literal["assistant"]
    content: Content | None = None
    images: Annotated[list[ImagePart], Field(max_length=MAX_PARTS)] | None = None
    name: str | None = None
    notice: str | None = None
    refusal: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)
    audio: None = None
    function_call: None = None
    tool_calls: list[Any] | None = Field(default=None, max_length=0)


ChatMessage: TypeAlias = Annotated[Instructions | Question | Answer, Field(discriminator="role")]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SEED - MAX_DRAWINGS)]
Temperature: TypeAlias = Annotated[float, Field(ge=0, le=2)]
TopK: TypeAlias = Annotated[int, Field(ge=1)]
TopP: TypeAlias = Annotated[float, Field(gt=0, le=1)]


class StreamOptions(Parameters):
    include_usage: bool = False
    include_obfuscation: bool = False  # never added


class ChatParameters(Parameters):
    """Of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Temperature = 0.0
    top_k: TopK | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    max_images: Annotated[int, Field(ge=1, le=16)] = 4
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @model_validator(mode="before")
    @classmethod
    def check_honoured(cls, values: Any) -> Any:
        return drop_neutral(values, NEUTRAL_IN_CHAT)


class PictureParameters(Parameters):
    """Of /v1/images/generations; None leaves a setting to the model."""

    prompt: str
    model: str | None = None
    n: Annotated[int, Field(ge=1)] = 1
    size: str = "auto"
    seed: Seed | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] = 0

    @model_validator(mode="before")
    @classmethod
    def check_honoured(cls, values: Any) -> Any:
        return drop_neutral(values, NEUTRAL_IN_PICTURES)

    @model_validator(mode="after")
    def check_stream(self) -> Self:
        if self.stream and self.n > 1:
            raise ValueError(f"a stream shows one picture, got n = {self.n}; leave stream out")
        if self.partial_images and not self.stream:
            raise ValueError("partial_images needs a stream; set stream, too")
        return self
