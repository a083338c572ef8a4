"""Training batches of drawn scenes, each a function of the step number alone."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from eval.scene_dialogues import dialogue
from eval.scene_questions import Question, describe, questions
from eval.scene_scores import encode_scenes, scene_pixels
from eval.scene_text import example
from eval.scenes import Scene
from mllm.messages import Message
from mllm.processor import Encoded, EncodedBatch, Processor, codes_of
from train.config import RunConfig
from train.scene_lessons import QuestionChooser, choose_questions, drill
from unitok.files import atomic_write
from unitok.model import UniTok
from unitok.text import build_text_tokenizer

# Shares of the pictures that are kept, by their number of objects. One object is soon mastered;
# which of two has which color and place is learned last.
KEPT_FOR_PAIRS = {1: 0.25, 2: 1.0, 3: 0.5, 4: 0.5}
KEPT_FOR_QUESTIONS = {1: 0.5, 2: 1.0, 3: 1.0, 4: 1.0}
UNCONDITIONAL_SHARE = 0.1  # of the drawing rows learn to draw without a prompt, for guidance
NUM_FINGERPRINTED = 32  # training scenes that tell whether the drawn world is still the same
ENCODE_CHUNK = 2048  # pictures between two reports of progress


def training_example(index: int) -> tuple[Scene, str]:
    """The `index`-th training picture with a caption of it: always the same."""
    return example(random.Random(f"example:{index}"))


def training_dialogue(index: int) -> Sequence[Message]:
    """The `index`-th training conversation: always the same."""
    return dialogue(random.Random(f"dialogue:{index}"))


def text_lines(num_examples: int) -> list[str]:
    """What is written about the first training pictures, for the text tokenizer."""
    lines = []
    for index in range(num_examples):
        scene, caption = training_example(index)
        rng = random.Random(f"lines:{index}")
        asked = [*questions(scene, rng, balanced=False), describe(scene, rng)]
        lines += [caption, *(text for item in asked for text in (item.question, item.answer))]
        for message in training_dialogue(index):
            lines += [part["text"] for part in message["content"] if part["type"] == "text"]
    return lines


class TokenizerBatches(Dataset[tuple[Tensor, Tensor]]):
    """`self[step]` -> pixels (B, 3, S, S) and ids (B, T) of their captions."""

    def __init__(
        self, batch_size: int, *, image_size: int, vocab_size: int, context_length: int
    ) -> None:
        self.batch_size = batch_size
        self.image_size = image_size
        self.tokenizer = build_text_tokenizer(vocab_size, context_length)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        first = step * self.batch_size
        examples = [training_example(first + i) for i in range(self.batch_size)]
        scenes, captions = zip(*examples, strict=True)
        return scene_pixels(list(scenes), self.image_size), self.tokenizer(list(captions))


class SceneCodes:
    """Codes of the training pictures, extracted once: uint16 on disk, int64 (L, K) when read."""

    def __init__(self, path: Path, *, tokenizer_fingerprint: str) -> None:
        """Raises ValueError for codes of another tokenizer, or of scenes that changed since."""
        check_codes_origin(path, tokenizer_fingerprint)
        tensors = load_file(path)
        self.examples = tensors["examples"]  # (N, L, K)
        self.dialogue_pictures = tensors["dialogue_pictures"]  # (M, L, K)
        self.dialogue_ends = tensors["dialogue_ends"].tolist()  # pictures up to each dialogue

    def example(self, index: int) -> Tensor:
        return self.examples[index].long()

    def dialogue(self, index: int) -> list[Tensor]:
        start = self.dialogue_ends[index - 1] if index else 0
        return list(self.dialogue_pictures[start : self.dialogue_ends[index]].long())


def extract_scene_codes(
    tokenizer: UniTok,
    path: Path,
    *,
    num_examples: int,
    num_dialogues: int,
    report: Callable[[int, int], None],
) -> None:
    """Encode the training pictures and write them to `path` in one step."""
    pictures = [_dialogue_scenes(index) for index in range(num_dialogues)]
    scenes = [scene for own in pictures for scene in own]
    ends = torch.tensor([len(own) for own in pictures]).cumsum(0)
    parts = []
    for start in range(0, num_examples, ENCODE_CHUNK):
        indices = range(start, min(start + ENCODE_CHUNK, num_examples))
        parts.append(encode_scenes(tokenizer, [training_example(index)[0] for index in indices]))
        report(indices.stop, num_examples + len(scenes))
    codes = {
        "examples": torch.cat(parts).to(torch.uint16),
        "dialogue_pictures": encode_scenes(tokenizer, scenes).to(torch.uint16),
        "dialogue_ends": ends,
    }
    origin = {"tokenizer_fingerprint": tokenizer.fingerprint, "scenes": scenes_fingerprint()}
    with atomic_write(path) as temporary:
        save_file(codes, temporary, metadata=origin)


def scenes_fingerprint() -> str:
    """Short name of what the training indices stand for: it changes with the drawn world."""
    content = [(training_example(i), training_dialogue(i)) for i in range(NUM_FINGERPRINTED)]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def check_codes_origin(path: Path, tokenizer_fingerprint: str) -> None:
    """Raise ValueError unless the codes in `path` belong to this tokenizer and these scenes."""
    with safe_open(path, "pt") as file:
        origin = file.metadata() or {}
    expected = {"tokenizer_fingerprint": tokenizer_fingerprint, "scenes": scenes_fingerprint()}
    for name, value in expected.items():
        if origin.get(name) != value:
            raise ValueError(
                f"{path} was extracted with {name} {origin.get(name)}, expected {value}; delete "
                "the file to extract the codes again"
            )


class BatchMix(RunConfig):
    """Rows of one training batch."""

    drawings: int = 32  # a prompt and its picture
    drills: int = 0  # a picture and few questions of one kind, see `drill`
    question_rows: int = 24  # a picture and several questions
    dialogues: int = 8  # conversations with up to two pictures, some of them drawn


class MLLMBatches(Dataset[list[tuple[EncodedBatch, Tensor]]]):
    """`self[step]` -> padded rows with the codes (P, L, K) of their pictures, in three lengths.

    Drawing rows are short and conversations long: padded together, half would be padding.
    """

    def __init__(
        self, processor: Processor, codes: SceneCodes, mix: BatchMix, *, seed: int
    ) -> None:
        self.processor = processor
        self.codes = codes
        self.mix = mix
        self.seed = seed

    def __getitem__(self, step: int) -> list[tuple[EncodedBatch, Tensor]]:
        rng = random.Random(f"{self.seed}:{step}")
        drawings = [self._drawing(rng) for _ in range(self.mix.drawings)]
        drills = [self._interview(rng, drill) for _ in range(self.mix.drills)]
        talks = [self._interview(rng, choose_questions) for _ in range(self.mix.question_rows)]
        talks += [self._dialogue(rng) for _ in range(self.mix.dialogues)]
        return [self._pad(rows) for rows in (drawings, drills, talks) if rows]

    def _choose(self, rng: random.Random, kept: Mapping[int, float]) -> int:
        """A picture; `kept` thins them by their number of objects."""
        while True:
            index = rng.randrange(len(self.codes.examples))
            if rng.random() < kept[len(training_example(index)[0].objects)]:
                return index

    def _drawing(self, rng: random.Random) -> Encoded:
        index = self._choose(rng, KEPT_FOR_PAIRS)
        _, caption = training_example(index)
        prompt = None if rng.random() < UNCONDITIONAL_SHARE else caption
        return self.processor.encode_text_to_image(prompt, picture=self.codes.example(index))

    def _interview(self, rng: random.Random, choose: QuestionChooser) -> Encoded:
        index = self._choose(rng, KEPT_FOR_PAIRS if choose is drill else KEPT_FOR_QUESTIONS)
        asked = choose(training_example(index)[0], rng)
        return self.processor.encode_chat(_interview(asked, self.codes.example(index)))

    def _dialogue(self, rng: random.Random) -> Encoded:
        index = rng.randrange(len(self.codes.dialogue_ends))
        codes = iter(self.codes.dialogue(index))
        messages = [
            {**message, "content": [_with_codes(part, codes) for part in message["content"]]}
            for message in training_dialogue(index)
        ]
        return self.processor.encode_chat(messages)

    def _pad(self, rows: Sequence[Encoded]) -> tuple[EncodedBatch, Tensor]:
        batch = self.processor.pad(rows, side="right")
        codes = [codes_of(picture) for picture in batch.pictures]
        return batch, torch.stack(codes)


def _interview(asked: Sequence[Question], codes: Tensor) -> list[Message]:
    """Question after question about one picture, which the first turn shows."""
    messages: list[Message] = []
    for question in asked:
        content: list[dict[str, Any]] = [{"type": "text", "text": question.question}]
        if not messages:
            content.insert(0, {"type": "image", "codes": codes})
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": question.answer})
    return messages


def _dialogue_scenes(index: int) -> list[Scene]:
    parts = [part for message in training_dialogue(index) for part in message["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]


def _with_codes(part: Any, codes: Any) -> Any:
    return part if part["type"] == "text" else {"type": "image", "codes": next(codes)}
