"""Pictures and words in, pictures and words out: what every front end calls.

A `Pipeline` holds an MLLM, the image tokenizer whose codes it was trained on, and its processor.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.utils.quantization_config import QuantizationConfigMixin

from mllm.answer import AnswerStream, AnswerWriter, ChatAnswer, Drawing, Emit, TextSettings
from mllm.config import UniTokMLLMConfig
from mllm.devices import (
    choose_device,
    choose_dtype,
    draw_remedy,
    explain_out_of_memory,
    load_remedy,
)
from mllm.generation import Progress, default_sampling, generate_codes
from mllm.image_tokenizer import TOKENIZER_FOLDER, check_tokenizer, find_tokenizer
from mllm.messages import Message, Part, as_messages, parts_of
from mllm.model import NANO_FOLDER, UniTokMLLM
from mllm.pictures import Picture, read_pixels
from mllm.processor import Encoded, Processor
from mllm.progress import count_tokens, part_of_progress, stop_when
from mllm.sampling import SamplingParams
from mllm.seeds import picture_seeds
from unitok.config import PATCH_SIZE
from unitok.hub import NANO, push_folder, resolve_model
from unitok.image import Rounding, to_pil
from unitok.model import UniTok

MIN_ANSWER_TOKENS = 16  # a prompt must leave room for so many
MAX_BATCH_SIZE = 16  # pictures drawn at a time


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
    ) -> list[Image.Image]:
        """Draw `num_images` pictures of each prompt, prompt by prompt.

        Picture number i of a prompt has the seed `seed + i`, or a whole sequence gives the seeds
        of all pictures of all prompts; a picture depends on nothing else of the batch. Settings
        that are None are the model's own. `rounding` of pixels to 8 bits is that of `to_pil`;
        `progress` is called with the visual tokens drawn and to draw.
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
        pictures = []
        for start in range(0, len(rows), batch_size):
            batch = slice(start, min(start + batch_size, len(rows)))
            report = part_of_progress(progress, batch, len(rows))
            codes = self._draw(rows[batch], seeds[batch], sampling=sampling, progress=report)
            pictures += self.decode(codes, rounding=rounding)
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

    # -- inside ----------------------------------------------------------------------------------

    def _draw(
        self,
        rows: Sequence[Encoded],
        seeds: Sequence[int],
        *,
        sampling: SamplingParams,
        progress: Progress | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Codes (B, L, K) of the pictures that follow B rows; `codes` are of those in the rows."""
        rows = list(rows)
        if sampling.is_guided:
            rows += [self.processor.encode_text_to_image(None)] * len(rows)
        batch = self.processor.pad(rows, side="left")
        remedy = draw_remedy(len(seeds), self.model.dtype)
        with torch.no_grad(), explain_out_of_memory("drawing", remedy):
            return generate_codes(
                self.model,
                batch.input_ids.to(self.device),
                batch.attention_mask.to(self.device),
                codes,
                sampling=sampling,
                seeds=seeds,
                progress=count_tokens(progress, len(seeds)),
            )

    def _answer(
        self,
        messages: Sequence[Message],
        settings: TextSettings,
        emit: Emit,
        is_cancelled: Callable[[], bool],
    ) -> ChatAnswer:
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
            draw=lambda ids, drawn: self._draw_in_chat(
                ids, drawn, seed=settings.seed, progress=stop_when(is_cancelled)
            ),
            emit=emit,
            is_cancelled=is_cancelled,
        )
        remedy = "start a new conversation, show fewer pictures, or use dtype bfloat16"
        with torch.no_grad(), explain_out_of_memory("answering", remedy):
            parts = writer.write(row, codes)
        return ChatAnswer(
            text=" ".join(part["text"] for part in parts if part["type"] == "text").strip(),
            images=[part["image"] for part in parts if part["type"] == "image"],
            messages=[*conversation, {"role": "assistant", "content": parts}],
            notice=writer.notice,
            num_tokens=writer.num_tokens,
            is_cut=writer.is_cut,
        )

    def _draw_in_chat(
        self, ids: Tensor, codes: Tensor | None, *, seed: int, progress: Progress
    ) -> Drawing:
        """The picture that the model itself began, guided away from no conversation at all."""
        row = Encoded(ids.cpu(), ids.cpu(), ())
        sampling = self.build_sampling()
        drawn = self._draw([row], [seed], sampling=sampling, progress=progress, codes=codes)
        return Drawing(self.decode(drawn)[0], drawn[0])

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
