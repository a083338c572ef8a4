"""The model that a training stage starts from, as a folder that `from_pretrained` takes.

Our own MLLM is taken as it is. Around a language model the visual parts are built once and saved,
so that every process, sharded by ZeRO or not, loads the same weights in the same way.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from mllm.config import UniTokMLLMConfig
from mllm.generation import set_default_sampling
from mllm.image_tokenizer import load_tokenizer
from mllm.model import NANO_FOLDER, UniTokMLLM
from mllm.pipeline import Pipeline
from mllm.processor import Processor
from mllm.sampling import SamplingParams
from mllm.text_tokenizer import BOS_ID, EOS_ID, TOKENIZER_FILE, UNK_ID, TextTokenizer
from train.model_config import build_model_config
from train.stage_config import InitConfig
from unitok.files import read_json
from unitok.hub import resolve_model
from unitok.model import UniTok

LLM_TYPE = "llama"
INIT_FOLDER = "init"  # inside the run folder


def initial_folder(config: InitConfig, run: Path, *, seed: int) -> str:
    """What `Pipeline.from_pretrained` loads at the start; built in `run` when there is none yet."""
    if config.mllm is not None:
        return config.mllm
    folder = run / INIT_FOLDER
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed here
        build_pipeline(config, seed=seed).save_pretrained(unfinished)
        unfinished.rename(folder)
    return str(folder)


@dataclass(frozen=True, eq=False)
class StartPlan:
    """All about the start of a stage but its weights."""

    model_config: UniTokMLLMConfig
    processor: Processor


def plan_start(config: InitConfig) -> StartPlan:
    """What `initial_folder` holds or will hold."""
    if config.mllm is None:
        return plan_fresh(config, load_tokenizer(config.tokenizer, device="cpu"))
    folder = resolve_model(
        config.mllm,
        nano_folder=NANO_FOLDER,
        expected_type=UniTokMLLMConfig.model_type,
        revision=config.revision,
    )
    return StartPlan(UniTokMLLMConfig.from_pretrained(folder), Processor.from_pretrained(folder))


def plan_fresh(config: InitConfig, tokenizer: UniTok) -> StartPlan:
    """The config of a language model with visual parts around it, and its processor."""
    text_folder = config.text_tokenizer or find_language_model(config)
    text_tokenizer = TextTokenizer.from_file(Path(text_folder) / TOKENIZER_FILE)
    llm_config = read_llm_config(config, vocab_size=len(text_tokenizer))
    model_config = build_model_config(
        llm_config,
        tokenizer,
        chat_template=config.chat_template,
        projection_dim=config.projection_dim,
        projection_heads=config.projection_heads,
        head_layers=config.head_layers,
    )
    return StartPlan(model_config, Processor.for_config(model_config, text_tokenizer))


def build_pipeline(config: InitConfig, *, seed: int) -> Pipeline:
    """A language model with fresh visual parts, and all that belongs to it."""
    tokenizer = load_tokenizer(config.tokenizer, device="cpu")
    plan = plan_fresh(config, tokenizer)
    torch.manual_seed(seed)
    model = UniTokMLLM(plan.model_config)
    model.adopt_tokenizer(tokenizer.quantizer, fingerprint=tokenizer.fingerprint)
    if config.sampling is not None:
        set_default_sampling(model, SamplingParams(**config.sampling.model_dump()))
    if config.llm is not None:
        adopt_language_model(model, find_language_model(config))
    return Pipeline(model, plan.processor, tokenizer)


def find_language_model(config: InitConfig) -> Path:
    """The folder of a LLaMA-1 or LLaMA-2 style checkpoint with safetensors."""
    assert config.llm is not None
    folder = resolve_model(
        config.llm, nano_folder=Path(config.llm), expected_type=LLM_TYPE, revision=config.revision
    )
    if not any((folder / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        raise FileNotFoundError(
            f"the language model {config.llm} has no safetensors; other weights are never "
            "unpickled: take a revision that has them or save it again with transformers"
        )
    return folder


def read_llm_config(config: InitConfig, *, vocab_size: int) -> LlamaConfig:
    """The language model's config; its vocabulary must be the text tokenizer's."""
    values: dict[str, Any] = {"vocab_size": vocab_size, **(config.llm_config or {})}
    if config.llm is not None:
        values = read_json(find_language_model(config) / "config.json")
    llm_config = LlamaConfig(**{**values, "pad_token_id": UNK_ID, "tie_word_embeddings": False})
    found = (llm_config.vocab_size, llm_config.bos_token_id, llm_config.eos_token_id)
    if found != (vocab_size, BOS_ID, EOS_ID):
        raise ValueError(
            f"the language model has vocabulary, bos and eos {found}, its text tokenizer "
            f"{(vocab_size, BOS_ID, EOS_ID)}; name the text tokenizer that belongs to it"
        )
    return llm_config


def adopt_language_model(model: UniTokMLLM, folder: Path) -> None:
    """Take over every weight of a language model; its embeddings may be tied to its output."""
    loaded: Any = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    language_model, info = loaded
    problems = {name: keys for name, keys in info.items() if keys and name != "error_msgs"}
    if problems:
        raise ValueError(f"the weights in {folder} do not fit its config.json: {problems}")
    model.decoder.load_state_dict(language_model.model.state_dict())
    model.lm_head.load_state_dict(language_model.lm_head.state_dict())
