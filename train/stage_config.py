"""Settings of one training stage of the MLLM, as `train.mllm` reads them from YAML."""

from typing import Any, Literal

from pydantic import Field, model_validator

from train.config import RunConfig
from train.deepspeed_settings import read_zero
from train.mllm_data import MixtureSource, RowConfig
from train.model_config import SamplingDefaults
from train.optimizers import OptimConfig, OptimizerName
from train.parts import check_parts

# Of the decoder; all of them keep the samples of a pack apart.
Attention = Literal["packed_sdpa", "sdpa", "eager", "flash_attention_2"]


class InitConfig(RunConfig):
    """Where the weights come from: an MLLM of ours, or a language model and a tokenizer."""

    mllm: str | None = None  # nano, a folder (such as the previous stage's result) or a hub name
    # LLaMA-1, LLaMA-2, Vicuna or TinyLlama in Hugging Face's layout: a folder or a hub name
    llm: str | None = None
    llm_config: dict[str, Any] | None = None  # LlamaConfig values of a fresh language model
    text_tokenizer: str | None = None  # folder with tokenizer.model; by default the llm's
    tokenizer: str = "nano"  # image tokenizer
    revision: str | None = None  # of the mllm or llm on the hub
    # Of what a language model lacks:
    projection_dim: int = 1024
    projection_heads: int = 16
    head_layers: int = 3
    chat_template: str = "vicuna"
    sampling: SamplingDefaults | None = None  # of drawings; None: the library's

    @model_validator(mode="after")
    def _check_source(self) -> "InitConfig":
        given = [name for name in ("mllm", "llm", "llm_config") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"init_from needs one of mllm, llm or llm_config, got {given or None}")
        if self.llm_config is not None and self.text_tokenizer is None:
            raise ValueError("init_from.llm_config needs text_tokenizer, a folder with its model")
        return self


class DataConfig(RunConfig):
    """What is trained on, and what validation looks at."""

    sources: tuple[MixtureSource, ...] = Field(min_length=1)
    validation: tuple[MixtureSource, ...] = ()  # beside the rows that sources hold out
    num_samples: int | None = Field(default=None, gt=0)  # None: one epoch of the sources
    num_validation: int = Field(default=64, gt=0)  # samples of each validation
    rows: RowConfig = RowConfig()
    seed: int = 0
    num_workers: int = Field(default=2, ge=0)  # processes that read and encode, per process

    @property
    def all_validation(self) -> tuple[MixtureSource, ...]:
        """All that validation looks at, of sources to learn from their held-out rows."""
        return (*(source for source in self.sources if source.held_out), *self.validation)


class StageOptimConfig(OptimConfig):
    """As everywhere, with a stage's defaults; and what only a stage has."""

    lr: float = Field(gt=0)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_share: float = Field(default=0.03, ge=0, lt=1)
    final_lr_share: float = Field(default=0.0, ge=0, le=1)
    clip_grad: float = Field(default=1.0, ge=0)  # 0: gradients stay as they are
    optimizer: OptimizerName = "adamw"
    lr_scales: dict[str, float] = Field(default_factory=dict)  # part of the model -> factor on lr
    text_weight: float = Field(default=1.0, gt=0)  # of a text id in the loss; a sub-code has 1

    @model_validator(mode="after")
    def _check_clipping(self) -> "StageOptimConfig":
        if self.optimizer == "muon" and self.clip_grad:
            raise ValueError(
                f"optim.clip_grad is {self.clip_grad}, but ZeRO would clip the updates that muon "
                "has made orthogonal; set optim.clip_grad=0"
            )
        return self


class BatchConfig(RunConfig):
    """Samples of a step: samples_per_pack * accumulation * processes."""

    samples_per_pack: int = Field(gt=0)
    accumulation: int = Field(default=1, gt=0)


class LoraSettings(RunConfig):
    """Low-rank adapters on the language model's linear layers (arXiv 2106.09685)."""

    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    quantization: Literal["nf4", "fp4"] | None = None  # of the frozen layers, in 4 bits: QLoRA
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"  # of all else that does not learn


class QuestionSetting(RunConfig):
    """A question that is asked again and again during a training."""

    question: str
    image: str | None = None  # a path or example:NAME


class SampleSettings(RunConfig):
    """What is drawn and answered now and then, to look at."""

    every: int = Field(gt=0)  # steps; and at the end
    prompts: tuple[str, ...] = ()
    questions: tuple[QuestionSetting, ...] = ()
    answer_length: int = Field(default=48, gt=0)  # tokens


class WatchConfig(RunConfig):
    """Bookkeeping, in optimizer steps."""

    log_every: int = Field(default=10, gt=0)
    validate_every: int = Field(default=500, gt=0)
    save_every: int = Field(default=500, gt=0)
    # One alone would be deleted before the next is known to be complete.
    keep_checkpoints: int = Field(default=2, ge=2)
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    samples: SampleSettings | None = None


class StageConfig(RunConfig):
    """One stage."""

    output: str  # run folder
    init_from: InitConfig
    trainable: tuple[str, ...] = Field(min_length=1)  # parts of the model, see train/parts.py
    data: DataConfig
    optim: StageOptimConfig
    batch: BatchConfig
    lora: LoraSettings | None = None
    watch: WatchConfig = WatchConfig()
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    attention: Attention = "packed_sdpa"  # flash_attention_2 where it is installed
    deepspeed: str | None = None  # a JSON in train/configs/deepspeed, such as zero2, or a path
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0

    @model_validator(mode="after")
    def _check_names(self) -> "StageConfig":
        check_parts(self.trainable)
        check_parts(self.optim.lr_scales)
        for sources in (self.data.sources, self.data.all_validation):
            names = [source.name for source in sources]
            if len(set(names)) < len(names):
                raise ValueError(f"sources need different names, got {names}")
        return self

    @model_validator(mode="after")
    def _check_adapters(self) -> "StageConfig":
        if self.lora and self.lora.frozen_dtype == "bfloat16":
            self._check_bfloat16_base()
        if self.lora and self.deepspeed and read_zero(self.deepspeed).stage == 3:
            raise ValueError(
                "adapters cannot be merged into weights that ZeRO-3 has cut up; set deepspeed=zero2"
            )
        return self

    def _check_bfloat16_base(self) -> None:
        """Adapters cast between the two types, other layers do not."""
        if self.precision != "bf16":
            raise ValueError(
                "lora.frozen_dtype bfloat16 is computed in bfloat16: set precision=bf16"
            )
        if set(self.trainable) != {"llm"}:
            raise ValueError(
                f"trainable is {sorted(self.trainable)}, but parts that learn beside the llm need "
                "float32 around them; leave lora.frozen_dtype out"
            )
