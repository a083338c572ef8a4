"""Pictures and words in, pictures and words out: what every front end calls.

A `Pipeline` holds an MLLM, the image tokenizer whose codes it was trained on, and its processor.
"""

import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from PIL import Image
from torch import Tensor
from transformers.utils.quantization_config import QuantizationConfigMixin

from mllm.answer import AnswerStream, AnswerWriter, ChatAnswer, Drawing, Emit, TextSettings
from mllm.batcher import Batcher, Program, Read, Wish
from mllm.config import UniTokMLLMConfig
from mllm.devices import (
    choose_device,
    choose_dtype,
    draw_remedy,
    explain_out_of_memory,
    load_remedy,
)
from mllm.drawing_programs import OnCodes, draw_behind
from mllm.generation import Progress, default_sampling, report_tokens
from mllm.image_tokenizer import TOKENIZER_FOLDER, check_tokenizer, find_tokenizer
from mllm.messages import Message, Part, as_messages, parts_of
from mllm.model import NANO_FOLDER, UniTokMLLM
from mllm.pictures import Picture, read_pixels
from mllm.processor import Encoded, Processor
from mllm.progress import RowDrawn, stop_when
from mllm.running_rows import Row
from mllm.sampling import SamplingParams
from mllm.seeds import picture_seeds
from unitok.config import PATCH_SIZE
from unitok.hub import NANO, push_folder, resolve_model
from unitok.image import Rounding, to_pil
from unitok.model import UniTok

MIN_ANSWER_TOKENS = 16  # a prompt must leave room for so many
MAX_BATCH_SIZE = 16  # pictures drawn at a time
UNDRAWN = (128, 128, 128)  # color of what is not there yet

OnRow: TypeAlias = Callable[[int, RowDrawn], None]  # number of a picture of the call, its row


class Pipeline:
    """Chats about pictures and draws them."""

    def __init__(self, model: UniTokMLLM, processor: Processor, tokenizer: UniTok) -> None:
        check_tokenizer(model, tokenizer)
        rows, columns = model.config.grid
        if rows != columns:
            raise ValueError(f"pictures must be square, got a grid of {rows} x {columns}")
        self.model = model.train(False)
        self.processor = processor
        self.tokenizer = tokenizer.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str] = NANO,
        *,
        revision: str | None = None,
        tokenizer: str | PathLike[str] | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        quantization: QuantizationConfigMixin | None = None,
    ) -> "Pipeline":
        """Load `nano`, a folder or a hub name.

        The image tokenizer is the one that `tokenizer` names, else the folder `unitok` inside the
        model's, else the embedded one; another one than the model was trained on is refused.
        `dtype` None is bfloat16 on CUDA and float32 elsewhere; the tokenizer is always float32.
        `quantization`: how transformers keeps the model's linear layers smaller, if at all.
        """
        device = choose_device(device)
        model_dtype = choose_dtype(dtype, device)
        folder = resolve_model(
            str(name),
            nano_folder=NANO_FOLDER,
            expected_type=UniTokMLLMConfig.model_type,
            revision=revision,
        )
        with explain_out_of_memory(f"loading {name}", load_remedy(folder, model_dtype)):
            processor = Processor.from_pretrained(folder)
            model = load_model(folder, dtype=model_dtype, device=device, quantization=quantization)
            image_tokenizer = UniTok.from_pretrained(
                str(tokenizer or find_tokenizer(folder)), device=device
            )
        return cls(model, processor, image_tokenizer)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write everything into one folder, the image tokenizer into `unitok` inside it."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(Path(folder) / TOKENIZER_FOLDER)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Save and upload to the hub; returns the address of the commit."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(Path(folder), repo_id, private=private)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def image_size(self) -> int:
        """Pixels per side of a picture that is read or drawn."""
        return int(self.model.config.grid[0]) * PATCH_SIZE

    def fingerprints(self) -> dict[str, str]:
        """Short names of both sets of weights."""
        return {
            "model_fingerprint": self.model.fingerprint,
            "tokenizer_fingerprint": self.tokenizer.fingerprint,
        }

    # -- chat ------------------------------------------------------------------------------------

    def chat(
        self,
        question: str | Sequence[Message],
        image: Picture | Sequence[Picture] | None = None,
        *,
        history: Sequence[Message] = (),
        settings: TextSettings | None = None,
        **changes: float | None,
    ) -> ChatAnswer:
        """Answer a question about no, one or several pictures.

        Args:
            question: a text; or whole messages, whose parts {"type": "image", "image": ...} are
                the pictures.
            image: paths, `example:NAME`, or PIL pictures, shown before the text.
            history: the messages of an earlier answer, to go on from there.
            settings: how text is chosen; `changes` such as `max_new_tokens=40, temperature=0.7`
                replace single values of it.
        """
        chosen = replace(settings or TextSettings(), **changes)  # type: ignore[arg-type]
        messages = [*history, *as_messages(question, image)]
        return self._answer(messages, chosen, lambda piece: None, lambda: False)

    def stream_chat(
        self,
        question: str | Sequence[Message],
        image: Picture | Sequence[Picture] | None = None,
        *,
        history: Sequence[Message] = (),
        settings: TextSettings | None = None,
        **changes: float | None,
    ) -> AnswerStream:
        """As `chat`; iterate over the result for texts and pictures while they are made."""
        chosen = replace(settings or TextSettings(), **changes)  # type: ignore[arg-type]
        messages = [*history, *as_messages(question, image)]
        return AnswerStream(
            lambda emit, is_cancelled: self._answer(messages, chosen, emit, is_cancelled)
        )

    def encode_picture(self, picture: Picture) -> Part:
        """A picture as a part of a message, ready to be used in any number of turns."""
        recipe = self.model.config.image_recipe
        opened, pixels = read_pixels(picture, recipe, image_size=self.image_size)
        with torch.inference_mode():
            codes = self.tokenizer.encode(pixels.to(self.device))[0].cpu()
        return {"type": "image", "image": opened, "codes": codes}

    # -- pictures --------------------------------------------------------------------------------

    def generate_images(
        self,
        prompt: str | Sequence[str],
        *,
        num_images: int = 4,
        seed: int | Sequence[int] = 0,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        batch_size: int = MAX_BATCH_SIZE,
        rounding: Rounding = "round",
        progress: Progress | None = None,
        on_row: OnRow | None = None,
        preview: bool = False,
    ) -> list[Image.Image]:
        """Draw `num_images` pictures of each prompt, prompt by prompt.

        Picture number i of a prompt has the seed `seed + i`, or a whole sequence gives the seeds
        of all pictures of all prompts; a picture depends on nothing else of the batch. Settings
        that are None are the model's own. `batch_size` pictures are drawn side by side. `rounding`
        of pixels to 8 bits is that of `to_pil`; `progress` is called with the visual tokens drawn
        and to draw, `on_row` with the number of a picture, from 0, and the row of its grid that is
        there, with `preview` as pixels too.
        """
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {num_images}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        sampling = self.build_sampling(
            guidance_scale=guidance_scale, temperature=temperature, top_k=top_k, top_p=top_p
        )
        rows = [row for row in map(self.encode_prompt, prompts) for _ in range(num_images)]
        seeds = picture_seeds(seed, num_prompts=len(prompts), num_images=num_images)
        programs = [
            self.drawing(
                row,
                sampling,
                seed=own_seed,
                on_row=None if on_row is None else partial(on_row, number),
                preview=preview,
            )
            for number, (row, own_seed) in enumerate(zip(rows, seeds, strict=True))
        ]
        codes = self._draw_all(programs, batch_size=batch_size, progress=progress)
        pictures = []
        for start in range(0, len(rows), batch_size):
            batch_BLK = torch.stack(codes[start : start + batch_size])
            pictures += self.decode(batch_BLK, rounding=rounding)
        return pictures

    def encode_prompt(self, prompt: str) -> Encoded:
        """The row that drawing continues; raises ValueError for an empty or too long prompt."""
        row = self.processor.encode_text_to_image(prompt)
        self.processor.check_length(row, reserve=self.processor.num_visual_tokens)
        return row

    def build_sampling(self, **changes: float | None) -> SamplingParams:
        """The model's own settings for drawing with those `changes` that are not None."""
        given = {key: value for key, value in changes.items() if value is not None}
        return replace(default_sampling(self.model), **given)  # type: ignore[arg-type]

    def decode(self, codes: Tensor, *, rounding: Rounding = "round") -> list[Image.Image]:
        """Pictures of codes (B, L, K)."""
        remedy = draw_remedy(len(codes), self.tokenizer.dtype)
        with torch.inference_mode(), explain_out_of_memory("decoding", remedy):
            pixels = self.tokenizer.decode(codes.to(self.tokenizer.device))
            return to_pil(pixels, rounding=rounding)

    def decode_rows(self, codes_nK: Tensor) -> Image.Image:
        """What is there of a picture whose first rows are drawn; the rest is grey."""
        size, columns = self.image_size, self.model.config.grid[1]
        with torch.inference_mode():
            codes_1nK = codes_nK[None].to(self.tokenizer.device)
            pixels = self.tokenizer.decode(codes_1nK, (len(codes_nK) // columns, columns))
        canvas = Image.new("RGB", (size, size), UNDRAWN)
        canvas.paste(to_pil(pixels)[0])
        return canvas

    # -- programs for a batcher ------------------------------------------------------------------

    def drawing(
        self,
        prompt: Encoded,
        sampling: SamplingParams,
        *,
        seed: int,
        on_row: Callable[[RowDrawn], None] | None = None,
        preview: bool = False,
    ) -> Generator[Wish, Any, Tensor]:
        """Codes (L, K) of the picture of a row of `encode_prompt`."""
        prompts = [prompt]
        if sampling.is_guided:
            prompts.append(self.processor.encode_text_to_image(None))
        rows = [Row() for _ in prompts]
        ids = [each.input_ids[None].to(self.device) for each in prompts]
        yield Read([(row, self.model.embed(own)[0]) for row, own in zip(rows, ids, strict=True)])
        drawn = yield from draw_behind(
            rows,
            sampling,
            seed=seed,
            config=self.model.config,
            on_row=None if on_row is None else self._report_rows(on_row, preview=preview),
        )
        return drawn.codes_LK

    def answering(
        self, messages: Sequence[Message], settings: TextSettings, *, emit: Emit
    ) -> Generator[Wish, Any, ChatAnswer]:
        """The next answer of a conversation; `emit` receives each piece as soon as it is there."""
        conversation = [self._with_codes(message) for message in messages]
        row = self.processor.encode_chat(conversation)
        self.processor.check_length(row, reserve=MIN_ANSWER_TOKENS)
        codes = None
        if row.pictures:
            codes = torch.stack([picture["codes"] for picture in row.pictures]).to(self.device)
        writer = AnswerWriter(
            self.model,
            self.processor,
            settings=settings,
            draw=partial(self._draw_in_chat, seed=settings.seed),
            emit=emit,
        )
        parts = yield from writer.write(row, codes)
        return ChatAnswer(
            text=" ".join(part["text"] for part in parts if part["type"] == "text").strip(),
            images=[part["image"] for part in parts if part["type"] == "image"],
            messages=[*conversation, {"role": "assistant", "content": parts}],
            notice=writer.notice,
            num_tokens=writer.num_tokens,
            is_cut=writer.is_cut,
        )

    # -- inside ----------------------------------------------------------------------------------

    def _draw_all(
        self, programs: Sequence[Program], *, batch_size: int, progress: Progress | None
    ) -> list[Tensor]:
        """Codes (L, K) of pictures, `batch_size` at a time."""
        batcher = Batcher(self.model)
        report = report_tokens(batcher, progress, num_pictures=len(programs))
        remedy = draw_remedy(min(batch_size, len(programs)), self.model.dtype)
        with explain_out_of_memory("drawing", remedy):
            return batcher.run_all(programs, max_active=batch_size, after_step=report)

    def _answer(
        self,
        messages: Sequence[Message],
        settings: TextSettings,
        emit: Emit,
        is_cancelled: Callable[[], bool],
    ) -> ChatAnswer:
        program = self.answering(messages, settings, emit=emit)
        remedy = "start a new conversation, show fewer pictures, or use dtype bfloat16"
        with explain_out_of_memory("answering", remedy):
            (answer,) = Batcher(self.model).run_all(
                [program], max_active=1, after_step=stop_when(is_cancelled)
            )
        return cast(ChatAnswer, answer)

    def _draw_in_chat(self, row: Row, *, seed: int) -> Generator[Wish, Any, Drawing]:
        """The picture that the model itself began, guided away from no conversation at all."""
        sampling, rows = self.build_sampling(), [row]
        if sampling.is_guided:
            ids = self.processor.encode_text_to_image(None).input_ids.to(self.device)
            rows.append(Row())
            yield Read([(rows[1], self.model.embed(ids[None])[0])])
        drawn = yield from draw_behind(rows, sampling, seed=seed, config=self.model.config)
        return Drawing(self.decode(drawn.codes_LK[None])[0], drawn.codes_LK, drawn.last_1D)

    def _report_rows(self, on_row: Callable[[RowDrawn], None], *, preview: bool) -> OnCodes:
        """What turns codes so far into a report of their last row."""
        num_rows, columns = self.model.config.grid

        def report(codes_nK: Tensor) -> None:
            picture = self.decode_rows(codes_nK) if preview else None
            on_row(RowDrawn(len(codes_nK) // columns, num_rows, picture))

        return report

    def _with_codes(self, message: Message) -> Message:
        """The message with codes in each of its picture parts."""
        parts = [
            part if part["type"] == "text" or "codes" in part else self._encode_part(part)
            for part in parts_of(message)
        ]
        return {**message, "content": parts}

    def _encode_part(self, part: Part) -> Part:
        if "image" not in part:
            raise ValueError(
                f'a picture part needs an "image" (a path or a PIL picture), got {sorted(part)}'
            )
        return {**part, **self.encode_picture(part["image"])}


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    quantization: QuantizationConfigMixin | None,
) -> UniTokMLLM:
    """The MLLM in `folder`, on its device; quantized layers are made there."""
    options: dict[str, Any] = {}
    if quantization is not None:
        options = {"quantization_config": quantization, "device_map": {"": device}}
    model: Any = UniTokMLLM.from_pretrained(folder, dtype=dtype, **options)
    moved: UniTokMLLM = model if quantization is not None else model.to(device)
    return moved
