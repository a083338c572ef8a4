"""From messages, prompts and captions to token ids, placeholders and labels.

A picture stands in the ids as L placeholders; the caller brings its codes in the same order. Text
on each side of a picture is tokenised on its own, as the official model was trained.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoProcessor

from mllm.config import UniTokMLLMConfig
from mllm.messages import Message, parts_of, split_system
from mllm.model import NANO_FOLDER
from mllm.text_tokenizer import (
    BOI_ID,
    BOS_ID,
    EOI_ID,
    EOS_ID,
    TOKENIZER_FILE,
    UNCONDITIONAL,
    UNK_ID,
    TextTokenizer,
    clean_text,
)
from unitok.files import atomic_write
from unitok.hub import resolve_model

PROCESSOR_FILE = "processor_config.json"  # tells transformers which class to load
IGNORED_LABEL = -100
TEXT_TO_IMAGE = "{prompt} Generate an image based on this description."


@dataclass(frozen=True)
class Template:
    """How a conversation is written: `SYSTEM USER: question ASSISTANT: answer</s>USER: ...`."""

    system: str  # the system message when the conversation brings none
    user: str = "USER: "
    assistant: str = " ASSISTANT:"
    after_picture: str = "\n"  # behind each picture of the user


TEMPLATES = {
    "vicuna": Template(
        system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    "plain": Template(system=""),
}


@dataclass(frozen=True, eq=False)
class Encoded:
    """One row for the model."""

    input_ids: Tensor  # (T,) int64, each picture as L placeholders
    labels: Tensor  # (T,) int64, not shifted; -100 where nothing is learned
    pictures: tuple[Any, ...]  # what the caller passed as pictures, in reading order

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Rows of one length."""

    input_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, T) int64, 0 at padding
    labels: Tensor  # (B, T) int64
    pictures: tuple[Any, ...]  # of all rows, in reading order


def codes_of(picture: Any) -> Tensor:
    """Codes (L, K) of a picture as rows hold it: bare, or in a message's part."""
    codes: Tensor = picture["codes"] if isinstance(picture, dict) else picture
    return codes


class _Row:
    """Collects the ids and labels of one row from left to right."""

    def __init__(self, num_visual_tokens: int, image_token_id: int) -> None:
        self.placeholders = [image_token_id] * num_visual_tokens
        self.input_ids: list[int] = []
        self.labels: list[int] = []
        self.pictures: list[Any] = []

    def add(self, ids: Sequence[int], *, learned: bool = False) -> None:
        self.input_ids += ids
        self.labels += ids if learned else [IGNORED_LABEL] * len(ids)

    def add_picture(self, picture: Any, *, learned: bool = False) -> None:
        self.add(self.placeholders, learned=learned)
        self.pictures.append(picture)

    def build(self) -> Encoded:
        ids, labels = torch.tensor(self.input_ids), torch.tensor(self.labels)
        return Encoded(ids, labels, tuple(self.pictures))


class Processor:
    """Writes rows for one model; knows its text tokenizer, its template and its picture size."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        *,
        num_visual_tokens: int,
        image_token_id: int,
        context_length: int,
        template: str = "vicuna",
    ) -> None:
        """A picture takes `num_visual_tokens` (L) placeholders of `image_token_id`, which lies
        outside the text vocabulary; a row holds at most `context_length` ids."""
        if template not in TEMPLATES:
            raise ValueError(f"template must be one of {', '.join(TEMPLATES)}, got {template!r}")
        if 0 <= image_token_id < len(tokenizer):
            raise ValueError(
                f"image_token_id {image_token_id} is a piece of the text tokenizer; "
                f"expected an id outside 0 to {len(tokenizer) - 1}"
            )
        self.tokenizer = tokenizer
        self.num_visual_tokens = num_visual_tokens
        self.image_token_id = image_token_id
        self.context_length = context_length
        self.template = template

    @classmethod
    def for_config(cls, config: UniTokMLLMConfig, tokenizer: TextTokenizer) -> "Processor":
        """The processor of a model, whose config says all but the text tokenizer."""
        if (config.boi_token_id, config.eoi_token_id) != (BOI_ID, EOI_ID):
            raise ValueError(
                f"boi_token_id and eoi_token_id must be {BOI_ID} and {EOI_ID}, which no cleaned "
                f"text contains, got {config.boi_token_id} and {config.eoi_token_id}"
            )
        return cls(
            tokenizer,
            num_visual_tokens=config.num_visual_tokens,
            image_token_id=int(config.image_token_id or 0),
            context_length=config.text_config.max_position_embeddings,
            template=config.chat_template_name,
        )

    @classmethod
    def from_pretrained(
        cls, name: str | PathLike[str] = "nano", *, revision: str | None = None, **_: Any
    ) -> "Processor":
        """Load config.json and tokenizer.model of `nano`, a saved MLLM's folder or a hub name.

        Other keywords, which transformers' `AutoProcessor` passes on, change nothing.
        """
        model_type = UniTokMLLMConfig.model_type
        folder = resolve_model(
            str(name), nano_folder=NANO_FOLDER, expected_type=model_type, revision=revision
        )
        config = UniTokMLLMConfig.from_pretrained(folder)
        return cls.for_config(config, TextTokenizer.from_file(folder / TOKENIZER_FILE))

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write tokenizer.model beside a saved model, whose config.json holds the rest."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder)
        with atomic_write(Path(folder) / PROCESSOR_FILE) as path:
            path.write_text(json.dumps({"processor_class": type(self).__name__}, indent=2) + "\n")

    # -- rows ------------------------------------------------------------------------------------

    def encode_chat(self, messages: Sequence[Message]) -> Encoded:
        """A conversation; ending with the user's turn it is the prompt for the next answer.

        Learned are the assistant's turns: text, drawn pictures with their marks, and eos.
        """
        turns, system = split_system(messages)
        template = TEMPLATES[self.template]
        system = template.system if system is None else system
        row = self._start()
        for number, message in enumerate(turns):
            if message["role"] == "user":
                lead = f"{system} " if number == 0 and system else ""
                self._add_user_turn(row, message, lead=lead, is_first=number == 0)
            else:
                self._add_answer(row, message)
        return row.build()

    def encode_text_to_image(self, prompt: str | None, *, picture: Any = None) -> Encoded:
        """A prompt (None: the unconditional one) up to begin-of-image; with the picture, learned.

        Learned are begin-of-image, the codes, end-of-image and eos.
        """
        row = self._start()
        row.add(self.tokenizer.encode(self._prompt_text(prompt)))
        if picture is None:
            row.add([BOI_ID])
        else:
            self._add_drawing(row, picture)
            row.add([EOS_ID], learned=True)
        return row.build()

    def encode_caption(
        self,
        picture: Any,
        caption: str | None = None,
        *,
        form: Literal["marked", "bare"] = "marked",
    ) -> Encoded:
        """A picture and its caption, learned with what ends it; without one, the prompt for it.

        "marked" puts the picture between its marks and ends with eos; "bare" has no marks and
        ends with a newline.
        """
        row = self._start()
        if form == "marked":
            row.add([BOI_ID])
            row.add_picture(picture)
            row.add([EOI_ID])
        else:
            row.add_picture(picture)
        if caption is not None:
            text = clean_text(caption)
            ids = self.tokenizer.encode(text if form == "marked" else f"{text}\n")
            row.add([*ids, EOS_ID] if form == "marked" else ids, learned=True)
        return row.build()

    def encode_text(self, text: str) -> Encoded:
        """Plain text, learned from bos on."""
        row = _Row(self.num_visual_tokens, self.image_token_id)
        row.add([BOS_ID, *self.tokenizer.encode(clean_text(text))], learned=True)
        return row.build()

    # -- batches ---------------------------------------------------------------------------------

    def pad(self, batch: Sequence[Encoded], *, side: Literal["left", "right"]) -> EncodedBatch:
        """Rows of one length: left-padded to generate from, right-padded to learn from."""
        length = max(len(row) for row in batch)

        def padded(values: Tensor, fill: int) -> Tensor:
            missing = length - len(values)
            widths = (missing, 0) if side == "left" else (0, missing)
            return torch.nn.functional.pad(values, widths, value=fill)

        return EncodedBatch(
            input_ids=torch.stack([padded(row.input_ids, UNK_ID) for row in batch]),
            attention_mask=torch.stack([padded(torch.ones_like(r.input_ids), 0) for r in batch]),
            labels=torch.stack([padded(row.labels, IGNORED_LABEL) for row in batch]),
            pictures=tuple(picture for row in batch for picture in row.pictures),
        )

    def check_length(self, row: Encoded, *, reserve: int = 0) -> None:
        """Raise ValueError if the row, and `reserve` ids to come, exceed the model's context."""
        room = self.context_length - reserve
        if len(row) > room:
            pictures = f" (pictures take {len(row.pictures) * self.num_visual_tokens} of them)"
            raise ValueError(
                f"the prompt is {len(row)} tokens long{pictures if row.pictures else ''}, but may "
                f"be at most {room}: the model's context is {self.context_length} and {reserve} "
                "are kept for the answer; shorten it"
            )

    # -- parts of a row --------------------------------------------------------------------------

    def _start(self) -> _Row:
        row = _Row(self.num_visual_tokens, self.image_token_id)
        row.add([BOS_ID])
        return row

    def _prompt_text(self, prompt: str | None) -> str:
        if prompt is None:
            return UNCONDITIONAL
        text = clean_text(prompt)
        if not text:
            raise ValueError("the prompt is empty; describe the picture to draw")
        return TEXT_TO_IMAGE.format(prompt=text)

    def _add_user_turn(self, row: _Row, message: Message, *, lead: str, is_first: bool) -> None:
        template = TEMPLATES[self.template]
        text = lead + template.user
        # Behind an answer's eos LLaMA-2's tokenizer puts no space; a piece that starts a row or
        # follows a picture begins like a word.
        starts_word = is_first
        for part in parts_of(message):
            if part["type"] == "text":
                cleaned = clean_text(part["text"])
                # Between two texts; the template and a picture bring their own space.
                gap = " " if cleaned and text and not text[-1].isspace() else ""
                text += gap + cleaned
            else:
                row.add(self.tokenizer.encode(text, starts_word=starts_word))
                row.add_picture(part)
                text, starts_word = template.after_picture, True
        row.add(self.tokenizer.encode(text + template.assistant, starts_word=starts_word))

    def _add_answer(self, row: _Row, message: Message) -> None:
        for part in parts_of(message):
            if part["type"] == "text":
                row.add(self.tokenizer.encode(clean_text(part["text"])), learned=True)
            else:
                self._add_drawing(row, part)
        row.add([EOS_ID], learned=True)

    def _add_drawing(self, row: _Row, picture: Any) -> None:
        row.add([BOI_ID], learned=True)
        row.add_picture(picture, learned=True)
        row.add([EOI_ID], learned=True)


AutoProcessor.register(UniTokMLLMConfig, Processor)
