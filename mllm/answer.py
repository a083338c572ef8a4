"""Writing one answer of a chat: text, pictures the model decides to draw, text again.

Shapes: T ids so far, P pictures so far, L visual tokens, K codebooks.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from mllm.messages import Message, Part
from mllm.model import UniTokMLLM
from mllm.processor import Encoded, Processor
from mllm.progress import Cancelled
from mllm.sampling import SamplingParams, sample
from mllm.text_tokenizer import BOI_ID, BOS_ID, EOI_ID, EOS_ID, UNK_ID, TextTokenizer

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # how a character decodes that still lacks bytes

Piece: TypeAlias = str | Image.Image
Emit: TypeAlias = Callable[[Piece], None]


@dataclass(frozen=True)
class TextSettings:
    """How the text of an answer is chosen."""

    max_new_tokens: int = 256
    temperature: float = 0.0  # 0 takes the most likely token every time
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    max_images: int = 4  # so that an answer of nothing but pictures ends, too

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        self.build_sampling()  # checks the other values

    def build_sampling(self) -> SamplingParams:
        return SamplingParams(
            guidance_scale=1, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )


@dataclass(frozen=True, eq=False)
class ChatAnswer:
    """What the model answered."""

    text: str
    images: list[Image.Image]  # the pictures it drew, in reading order
    messages: list[Message]  # the conversation with this answer, to go on from
    notice: str | None = None  # why it ends where the model wanted to draw; None: it did not
    num_tokens: int = 0  # that the model wrote, marks and visual tokens included
    is_cut: bool = False  # whether it ends before the model came to an end

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture and what it was decoded from."""

    picture: Image.Image
    codes: Tensor  # (L, K) int64


# Continues ids (T,) that end in begin-of-image, with the codes (P, L, K) of their pictures.
Draw: TypeAlias = Callable[[Tensor, Tensor | None], Drawing]


class PieceStreamer(BaseStreamer):
    """Hands on new text as soon as its characters are complete; for transformers' `generate`."""

    def __init__(self, tokenizer: TextTokenizer, emit: Emit) -> None:
        self.tokenizer = tokenizer
        self.emit = emit
        self.ids: list[int] | None = None  # None until the prompt has passed by
        self.text = ""

    def put(self, value: Tensor) -> None:
        if self.ids is None:
            self.ids = []
            return
        self.ids += value.flatten().tolist()
        self._hand_on(self.tokenizer.decode(self.ids).rstrip(INCOMPLETE))

    def end(self) -> None:
        self._hand_on(self.tokenizer.decode(self.ids or []))

    def _hand_on(self, text: str) -> None:
        if len(text) > len(self.text):
            self.emit(text[len(self.text) :])
            self.text = text


class SeededSampling(LogitsProcessor):
    """Leaves one token to choose from, picked with an own generator.

    So `generate` draws from no global random state, and other threads do not disturb it.
    """

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self.params = params
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = torch.rand(len(scores), generator=self.generator)
        chosen = sample(scores, noise.to(scores.device), self.params)
        return torch.full_like(scores, float("-inf")).scatter(1, chosen[:, None], 0.0)


class StopWhenCancelled(StoppingCriteria):
    def __init__(self, is_cancelled: Callable[[], bool]) -> None:
        self.is_cancelled = is_cancelled

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        return input_ids.new_full((len(input_ids),), self.is_cancelled(), dtype=torch.bool)


class AnswerWriter:
    """Writes one answer, part by part."""

    def __init__(
        self,
        model: UniTokMLLM,
        processor: Processor,
        *,
        settings: TextSettings,
        draw: Draw,
        emit: Emit,
        is_cancelled: Callable[[], bool],
    ) -> None:
        """`emit` receives each piece as soon as it is there; once `is_cancelled` says so, writing
        ends with `Cancelled`."""
        self.model = model
        self.processor = processor
        self.settings = settings
        self.draw = draw
        self.emit = emit
        self.is_cancelled = is_cancelled
        self.sampler = SeededSampling(settings.build_sampling(), settings.seed)
        self.num_text_tokens = 0
        self.num_drawn = 0
        self.num_tokens = 0  # texts, marks and visual tokens
        self.is_cut = True  # until the model ends the answer itself
        self.notice: str | None = None  # why the answer ends where the model wanted to draw

    def write(self, row: Encoded, codes: Tensor | None) -> list[Part]:
        """The answer to `row`, whose pictures have `codes` (P, L, K), as parts of a message.

        It ends before a picture that there is no room for, which `notice` says; raises ValueError
        if nothing was written by then.
        """
        ids = row.input_ids.to(self.model.device)
        parts: list[Part] = []
        while (room := self._room(ids)) > 0:
            streamer = PieceStreamer(self.processor.tokenizer, self.emit)
            start = len(ids)
            ids = self._write_text(ids, codes, streamer=streamer, max_new_tokens=room)
            self.num_text_tokens += len(ids) - start
            if streamer.text:
                parts.append({"type": "text", "text": streamer.text})
            if ids[-1] != BOI_ID:
                self.is_cut = bool(ids[-1] != EOS_ID)
                break
            self.notice = self._refuse_picture(ids)
            if self.notice is not None:
                break
            drawn = self.draw(ids, codes)
            parts.append({"type": "image", "image": drawn.picture, "codes": drawn.codes.cpu()})
            self.emit(drawn.picture)
            self.num_drawn += 1
            codes = drawn.codes[None] if codes is None else torch.cat([codes, drawn.codes[None]])
            ids = torch.cat([ids, ids.new_tensor(self._picture_ids())])
        self.num_tokens = len(ids) - len(row)
        if self.notice is not None and not parts:
            raise ValueError(self.notice)
        return parts

    def _write_text(
        self, ids: Tensor, codes: Tensor | None, *, streamer: PieceStreamer, max_new_tokens: int
    ) -> Tensor:
        """Ids (T,) and the text that follows, with the eos or begin-of-image that ends it."""
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,  # the sampler leaves one choice
            bos_token_id=BOS_ID,
            eos_token_id=[EOS_ID, BOI_ID],
            pad_token_id=UNK_ID,
        )
        model: Any = self.model  # transformers types `generate` for a protocol of its own
        result: Tensor = model.generate(
            ids[None],
            codes=codes,
            attention_mask=torch.ones_like(ids[None]),
            generation_config=config,
            logits_processor=LogitsProcessorList([self.sampler]),
            stopping_criteria=StoppingCriteriaList([StopWhenCancelled(self.is_cancelled)]),
            streamer=streamer,
        )
        if self.is_cancelled():
            raise Cancelled
        return result[0]

    def _room(self, ids: Tensor) -> int:
        """How many text tokens may follow."""
        context = self.processor.context_length - len(ids)
        return min(self.settings.max_new_tokens - self.num_text_tokens, context)

    def _refuse_picture(self, ids: Tensor) -> str | None:
        """Why the picture that ids (T,) begin cannot be drawn; None if it can."""
        if self.num_drawn >= self.settings.max_images:
            return (
                f"the answer ends here: it may hold at most {self.settings.max_images} pictures "
                "(max_images)"
            )
        context = self.processor.context_length
        if len(ids) + len(self._picture_ids()) > context:
            return (
                f"the conversation is {len(ids)} tokens long, which leaves no room for a picture "
                f"of {self.processor.num_visual_tokens} in a context of {context}; start a new one"
            )
        return None

    def _picture_ids(self) -> list[int]:
        return [self.processor.image_token_id] * self.processor.num_visual_tokens + [EOI_ID]


class AnswerStream:
    """Text pieces and pictures of an answer while it is written; then `answer` is the whole.

    The model works in a thread of its own; leaving the loop early stops it. It is read once.
    """

    def __init__(self, write: Callable[[Emit, Callable[[], bool]], ChatAnswer]) -> None:
        self._write = write
        self._pieces: queue.Queue[Piece | None] = queue.Queue()
        self._cancelled = threading.Event()
        self._is_read = False
        self._answer: ChatAnswer | None = None

    @property
    def answer(self) -> ChatAnswer:
        if self._answer is None:
            raise RuntimeError("the answer is not complete; read the stream to its end first")
        return self._answer

    def __iter__(self) -> Iterator[Piece]:
        if self._is_read:
            raise RuntimeError(
                "a stream is read once; its `answer` holds the whole, or ask again for a new one"
            )
        self._is_read = True
        with ThreadPoolExecutor(max_workers=1) as executor:
            future = executor.submit(self._run)
            try:
                while (piece := self._pieces.get()) is not None:
                    yield piece
            finally:
                self._cancelled.set()
            self._answer = future.result()  # raises what went wrong in the thread

    def _run(self) -> ChatAnswer:
        try:
            return self._write(self._pieces.put, self._cancelled.is_set)
        finally:
            self._pieces.put(None)
