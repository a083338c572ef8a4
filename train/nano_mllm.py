"""Train a UniTok MLLM on drawn scenes: drawing, questions and conversations in one model."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from eval.scene_questions import KINDS
from eval.scene_scores import score_drawings, score_questions
from eval.scene_text import TASKS, drawing_prompt
from mllm.config import UniTokMLLMConfig
from mllm.generation import set_default_sampling
from mllm.model import UniTokMLLM
from mllm.pictures import make_grid, save_png
from mllm.pipeline import Pipeline
from mllm.processor import EncodedBatch, Processor
from mllm.sampling import SamplingParams
from mllm.text_tokenizer import TextTokenizer
from train.config import RunConfig
from train.loop import LoopConfig, StageLoop
from train.model_config import SamplingDefaults, build_model_config
from train.scene_data import BatchMix, MLLMBatches, SceneCodes
from unitok.model import UniTok

PREVIEW_PER_GROUP = 16  # drawings of each task and questions of each kind, now and then
PREVIEW_DRAWINGS = 4  # of each task in the sample grid
PREVIEW_SEED = 1_000_000  # the final scores have other seeds, and so other items


class ModelSizes(RunConfig):
    """Of the decoder, the visual embedder and the visual head."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    head_layers: int
    projection_dim: int
    projection_heads: int
    context_length: int = 1024


class MLLMConfig(RunConfig):
    """Everything about one MLLM run but its time."""

    model: ModelSizes
    init_from: str | None = None  # weights to start from: `nano`, a folder or a hub name
    mix: BatchMix = BatchMix()
    # A drawing has a hundred sub-codes for every word of an answer; more than 1 evens that out.
    text_weight: float = 1.0
    sampling: SamplingDefaults = SamplingDefaults()
    attention: Literal["sdpa", "eager"] = "sdpa"
    # Layers through torch.compile: a step of 46 rows takes 0.46 instead of 0.63 s on two cores, the
    # first ones half a minute more; needs a C++ compiler.
    compile: bool = False
    loop: LoopConfig


class MLLMTraining:
    """Losses and previews of one MLLM run."""

    def __init__(self, pipeline: Pipeline, folder: Path, *, text_weight: float) -> None:
        self.pipeline = pipeline
        self.folder = folder
        self.text_weight = text_weight
        self.prompts = [
            drawing_prompt(task, random.Random(f"preview:{task}:{index}"), "held_out")["prompt"]
            for task in TASKS
            for index in range(PREVIEW_DRAWINGS)
        ]

    def losses(self, batches: Sequence[tuple[EncodedBatch, Tensor]]) -> Mapping[str, Tensor]:
        """Mean loss of text ids and of sub-codes over all rows, and both as one weighted mean."""
        terms = [
            self.pipeline.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                labels=batch.labels,
                codes=codes,
            ).loss_terms
            for batch, codes in batches
        ]
        text, image = (sum(getattr(term, name) for term in terms) for name in ("text", "image"))
        num_text, num_image = (
            sum(getattr(term, name) for term in terms) for name in ("num_text", "num_image")
        )
        total = self.text_weight * text + image
        return {
            "loss": total / (self.text_weight * num_text + num_image),
            "text": text / max(1, num_text),
            "code": image / max(1, num_image),
        }

    def preview(self, step: int) -> Mapping[str, float]:
        """Answer and draw held-out items apart from the scored; the drawings go into samples/."""
        pipeline = self.pipeline
        # Generation has a cache and other shapes: compiling for them takes longer than they do.
        with torch.compiler.set_stance("force_eager"):
            answers = score_questions(pipeline, num_per_kind=PREVIEW_PER_GROUP, seed=PREVIEW_SEED)
            drawings, _ = score_drawings(
                pipeline, num_per_task=PREVIEW_PER_GROUP, seed=PREVIEW_SEED
            )
            pictures = pipeline.generate_images(self.prompts, num_images=1)
        path = self.folder / "samples" / f"mllm_{step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(make_grid(pictures, columns=PREVIEW_DRAWINGS), path)
        return {
            "answers_right": answers["all"].score,
            "drawings_right": drawings["all"].score,
            **{f"answers/{kind}": answers[kind].score for kind in KINDS},
            **{f"drawings/{task}": drawings[task].score for task in TASKS},
        }


def train_mllm(
    config: MLLMConfig,
    folder: Path,
    *,
    text_tokenizer: TextTokenizer,
    tokenizer: UniTok,
    codes: Path,
    minutes: float | None = None,
    resume: bool = False,
) -> Pipeline | None:
    """Train in `folder`; returns the pipeline, or None when a signal stopped it."""
    torch.manual_seed(config.loop.seed)
    model = _initial_model(config, size_model(config, text_tokenizer, tokenizer))
    model.adopt_tokenizer(tokenizer.quantizer, fingerprint=tokenizer.fingerprint)
    model.set_attn_implementation(config.attention)
    if config.compile:
        compile_layers(model)
    set_default_sampling(model, SamplingParams(**config.sampling.model_dump()))
    processor = Processor.for_config(model.config, text_tokenizer)
    pipeline = Pipeline(model, processor, tokenizer)
    training = MLLMTraining(pipeline, folder, text_weight=config.text_weight)
    stage = StageLoop(
        "mllm",
        folder,
        model=model,
        data=MLLMBatches(
            processor,
            SceneCodes(codes, tokenizer_fingerprint=tokenizer.fingerprint),
            config.mix,
            seed=config.loop.seed,
        ),
        compute_losses=training.losses,
        config=config.loop,
        samples_per_step=sum(config.mix.model_dump().values()),
        sample=training.preview,
    )
    finished = stage.run(minutes=minutes, resume=resume)
    model.eval()
    return pipeline if finished else None


def compile_layers(model: UniTokMLLM) -> None:
    """Compile decoder and visual head layer by layer, once for all lengths."""
    for layer in [*model.decoder.layers, *model.visual_head.decoder.layers]:
        layer.compile(dynamic=True)


def _initial_model(config: MLLMConfig, model_config: UniTokMLLMConfig) -> UniTokMLLM:
    """Fresh weights, or those of `init_from`, whose pictures may have had other codes."""
    model = UniTokMLLM(model_config)
    if config.init_from is None:
        return model
    start: UniTokMLLM = UniTokMLLM.from_pretrained(config.init_from, dtype=torch.float32)
    sizes, start_sizes = (
        {name: tuple(value.shape) for name, value in each.state_dict().items()}
        for each in (model, start)
    )
    if sizes != start_sizes:
        raise ValueError(
            f"mllm.init_from {config.init_from} has other sizes than mllm.model; give mllm.model "
            "the sizes of those weights"
        )
    model.load_state_dict(start.state_dict())
    return model


def size_model(
    config: MLLMConfig, text_tokenizer: TextTokenizer, tokenizer: UniTok
) -> UniTokMLLMConfig:
    """The model's config: its own sizes, and what both tokenizers dictate."""
    sizes = config.model
    return build_model_config(
        {
            "vocab_size": len(text_tokenizer),
            "hidden_size": sizes.hidden_size,
            "intermediate_size": sizes.intermediate_size,
            "num_hidden_layers": sizes.num_layers,
            "num_attention_heads": sizes.num_heads,
            "num_key_value_heads": sizes.num_heads,
            "max_position_embeddings": sizes.context_length,
            "rms_norm_eps": 1e-5,
            "pad_token_id": 0,
        },
        tokenizer,
        projection_dim=sizes.projection_dim,
        projection_heads=sizes.projection_heads,
        head_layers=sizes.head_layers,
        chat_template="plain",
    )
