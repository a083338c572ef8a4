"""What a stage learns from and validates on, opened and checked before any weight is loaded."""

from dataclasses import dataclass

from accelerate import PartialState

from mllm.processor import Processor
from train.mllm_data import MixtureDataset, RowEncoder, open_mixture, rows_to_validate
from train.stage_config import StageConfig
from train.stage_model import StartPlan, plan_start


@dataclass(frozen=True, eq=False)
class StageData:
    """Samples to learn from and to validate on."""

    training: MixtureDataset
    validation: MixtureDataset | None


def open_start(config: StageConfig) -> tuple[StartPlan, StageData]:
    """All that a stage begins with but the MLLM's weights."""
    plan = plan_start(config.init_from)
    context_length = plan.model_config.text_config.max_position_embeddings
    if config.data.rows.max_length > context_length:
        raise ValueError(
            f"data.rows.max_length is {config.data.rows.max_length}, but the model's context has "
            f"{context_length} positions; set it to at most that"
        )
    fingerprint = plan.model_config.tokenizer_fingerprint
    if fingerprint is None:
        raise ValueError(
            f"the model {config.init_from.mllm} names no image tokenizer, so nothing shows whether "
            "the codes are its own; convert it again together with its tokenizer"
        )
    return plan, open_data(config, plan.processor, tokenizer_fingerprint=fingerprint)


def open_data(
    config: StageConfig, processor: Processor, *, tokenizer_fingerprint: str
) -> StageData:
    """Open all sources; codes of another tokenizer are refused."""
    data = config.data
    per_batch = config.batch.samples_per_pack * PartialState().num_processes
    training = open_mixture(
        data.sources,
        RowEncoder(processor, data.rows),
        tokenizer_fingerprint=tokenizer_fingerprint,
        num_samples=data.num_samples,
        seed=data.seed,
        multiple_of=per_batch * config.batch.accumulation,
    )
    if not data.all_validation:
        return StageData(training, None)
    as_asked = data.rows.model_copy(update={"unconditional_share": 0.0, "bare_caption_share": 0.0})
    validation = open_mixture(
        data.all_validation,
        RowEncoder(processor, as_asked),
        choose_rows=rows_to_validate,
        tokenizer_fingerprint=tokenizer_fingerprint,
        num_samples=data.num_validation,
        seed=data.seed,
        multiple_of=per_batch,
    )
    return StageData(training, validation)
