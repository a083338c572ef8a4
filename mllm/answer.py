"""Writing one answer of a chat: text, pictures the model decides to draw, text again.

Shapes: T ids, D decoder width, P pictures, L visual tokens, K codebooks, V vocabulary.
"""

import queue
import threading
from collections.abc import Callable, Generator, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from mllm.batcher import ChooseToken, Read, Recall, Remember, Wish
from mllm.messages import Message, Part
from mllm.model import UniTokMLLM
from mllm.prefix_store import build_keys, visual_keys
from mllm.processor import Encoded, Processor
from mllm.running_rows import Row
from mllm.sampling import SamplingParams, sample
from mllm.text_tokenizer import BOI_ID, EOI_ID, EOS_ID, TextTokenizer

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
    last_1D: Tensor  # the last visual token, which the decoder has not read


# Draws behind a row that has been read up to begin-of-image.
Draw: TypeAlias = Callable[[Row], Generator[Wish, Any, Drawing]]


class TextPieces:
    """Hands on new text as soon as its characters are complete."""

    def __init__(self, tokenizer: TextTokenizer, emit: Emit) -> None:
        self.tokenizer = tokenizer
        self.emit = emit
        self.ids: list[int] = []
        self.text = ""

    def put(self, token_id: int) -> None:
        self.ids.append(token_id)
        self._hand_on(self.tokenizer.decode(self.ids).rstrip(INCOMPLETE))

    def end(self) -> None:
        self._hand_on(self.tokenizer.decode(self.ids))

    def _hand_on(self, text: str) -> None:
        if len(text) > len(self.text):
            self.emit(text[len(self.text) :])
            self.text = text


class SeededChoice:
    """Chooses text tokens with an own generator: other threads do not disturb it."""

    def __init__(self, params: SamplingParams, seed: int) -> None:
        self.params = params
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits_1V: Tensor) -> Tensor:
        noise_1 = torch.rand(1, generator=self.generator)
        return sample(logits_1V, noise_1.to(logits_1V.device), self.params)


class AnswerWriter:
    """Writes one answer, part by part, as a program for the batcher."""

    def __init__(
        self,
        model: UniTokMLLM,
        processor: Processor,
        *,
        settings: TextSettings,
        draw: Draw,
        emit: Emit,
    ) -> None:
        """`emit` receives each piece as soon as it is there."""
        self.model = model
        self.processor = processor
        self.settings = settings
        self.draw = draw
        self.emit = emit
        self.choose = SeededChoice(settings.build_sampling(), settings.seed)
        self.row = Row()
        self.keys: list[Hashable] = []  # what stands at each position of the conversation so far
        self.num_text_tokens = 0
        self.num_drawn = 0
        self.num_tokens = 0  # texts, marks and visual tokens
        self.is_cut = True  # until the model ends the answer itself
        self.notice: str | None = None  # why the answer ends where the model wanted to draw

    def write(self, prompt: Encoded, codes: Tensor | None) -> Generator[Wish, Any, list[Part]]:
        """The answer to `prompt`, whose pictures have `codes` (P, L, K), as parts of a message.

        It ends before a picture that there is no room for, which `notice` says; raises ValueError
        if nothing was written by then.
        """
        self.keys = [
            *build_keys(
                prompt.input_ids.tolist(),
                [] if codes is None else list(codes),
                image_token_id=self.processor.image_token_id,
            )
        ]
        ids_1T = prompt.input_ids[None].to(self.model.device)
        num_known: int = yield Recall(self.row, self.keys)
        unread_TD = self.model.embed(ids_1T, codes)[0, num_known:]
        parts: list[Part] = []
        while self._room() > 0:
            pieces = TextPieces(self.processor.tokenizer, self.emit)
            last = yield from self._write_text(unread_TD, pieces)
            if pieces.text:
                parts.append({"type": "text", "text": pieces.text})
            if last != BOI_ID:
                self.is_cut = last != EOS_ID
                break
            self.notice = self._refuse_picture()
            if self.notice is not None:
                break
            yield Read([(self.row, self._embed(BOI_ID))])
            drawing = yield from self.draw(self.row)
            parts.append({"type": "image", "image": drawing.picture, "codes": drawing.codes.cpu()})
            self.emit(drawing.picture)
            self.num_drawn += 1
            self.keys += [*visual_keys(drawing.codes), EOI_ID]
            unread_TD = torch.cat([drawing.last_1D, self._embed(EOI_ID)])
        self.num_tokens = len(self.keys) - len(prompt)
        yield Remember(self.row, self.keys[: self.row.length])
        if self.notice is not None and not parts:
            raise ValueError(self.notice)
        return parts

    def _write_text(self, unread_TD: Tensor, pieces: TextPieces) -> Generator[Wish, Any, int]:
        """Hand text on until eos, begin-of-image or the end of the room; returns the last token.

        The row has read all tokens but that one.
        """
        for _ in range(self._room()):
            yield Read([(self.row, unread_TD)])
            token_id: int = yield ChooseToken(self.row, self.choose)
            self.keys.append(token_id)
            self.num_text_tokens += 1
            pieces.put(token_id)
            if token_id in (EOS_ID, BOI_ID):
                break
            unread_TD = self._embed(token_id)
        pieces.end()
        return token_id

    def _embed(self, token_id: int) -> Tensor:
        """What the decoder reads of a text token, (1, D)."""
        embeds: Tensor = self.model.decoder.embed_tokens(
            torch.tensor([token_id], device=self.model.device)
        )
        return embeds

    def _room(self) -> int:
        """How many text tokens may follow."""
        context = self.processor.context_length - len(self.keys)
        return min(self.settings.max_new_tokens - self.num_text_tokens, context)

    def _refuse_picture(self) -> str | None:
        """Why the picture that the text begins cannot be drawn; None if it can."""
        if self.num_drawn >= self.settings.max_images:
            return (
                f"the answer ends here: it may hold at most {self.settings.max_images} pictures "
                "(max_images)"
            )
        context = self.processor.context_length
        if len(self.keys) + self._picture_length() > context:
            return (
                f"the conversation is {len(self.keys)} tokens long, which leaves no room for a "
                f"picture of {self.processor.num_visual_tokens} in a context of {context}; start a "
                "new one"
            )
        return None

    def _picture_length(self) -> int:
        """Ids of a picture behind its begin-of-image."""
        return self.processor.num_visual_tokens + 1


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
