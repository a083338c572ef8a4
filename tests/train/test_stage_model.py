"""Where a stage starts: our MLLM, a language model on disk, or a fresh one; wrong ones refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mllm.generation import default_sampling
from mllm.pipeline import Pipeline
from mllm.sampling import SamplingParams
from mllm.text_tokenizer import TextTokenizer
from tests.mllm.tiny_pipeline import build_tiny_tokenizer
from tests.mllm.tiny_text import tiny_tokenizer
from train.stage_config import InitConfig
from train.stage_model import initial_folder, plan_start

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
}
VISUAL = {"projection_dim": 32, "projection_heads": 4, "head_layers": 1}


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An image tokenizer, a text tokenizer and language models, saved."""
    folder = tmp_path_factory.mktemp("materials")
    build_tiny_tokenizer().save_pretrained(folder / "unitok")
    (folder / "text").mkdir()
    tiny_tokenizer().save(folder / "text")
    for name, tied in (("llm", False), ("tied", True)):
        save_language_model(folder / name, tied=tied)
    return {path.name: path for path in folder.iterdir()}


def save_language_model(folder: Path, *, tied: bool, **changes: Any) -> None:
    torch.manual_seed(3)
    values = {"vocab_size": len(tiny_tokenizer()), **SIZES, "tie_word_embeddings": tied, **changes}
    LlamaForCausalLM(LlamaConfig(**values)).save_pretrained(folder)
    tiny_tokenizer().save(folder)


def build_init(materials: dict[str, Path], **changes: Any) -> InitConfig:
    return InitConfig(
        tokenizer=str(materials["unitok"]), chat_template="plain", **VISUAL, **changes
    )


def test_a_fresh_model_draws_as_its_settings_say(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    sampling = {"guidance_scale": 2.0, "temperature": 0.5}
    config = build_init(materials, llm=str(materials["llm"]), sampling=sampling)
    pipeline = Pipeline.from_pretrained(initial_folder(config, tmp_path, seed=0), device="cpu")
    assert default_sampling(pipeline.model) == SamplingParams(guidance_scale=2.0, temperature=0.5)


@pytest.mark.parametrize("name", ["llm", "tied"])
def test_a_language_model_keeps_its_numbers(
    name: str, materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_init(materials, llm=str(materials[name]))
    pipeline = Pipeline.from_pretrained(initial_folder(config, tmp_path, seed=0), device="cpu")
    ids = torch.tensor([[1, 20, 30, 40]])
    language_model = LlamaForCausalLM.from_pretrained(materials[name])
    torch.testing.assert_close(
        pipeline.model(ids).logits, language_model(ids).logits, atol=1e-6, rtol=1e-5
    )


def test_a_fresh_language_model_is_the_same_for_a_seed(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_init(materials, llm_config=SIZES, text_tokenizer=str(materials["text"]))
    runs = [
        Pipeline.from_pretrained(initial_folder(config, tmp_path / name, seed=seed), device="cpu")
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, second, other = (run.model.fingerprint for run in runs)
    assert first == second != other


def test_the_start_is_built_once(materials: dict[str, Path], tmp_path: Path) -> None:
    config = build_init(materials, llm_config=SIZES, text_tokenizer=str(materials["text"]))
    folder = Path(initial_folder(config, tmp_path, seed=1))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert initial_folder(config, tmp_path, seed=1) == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_the_plan_agrees_with_what_is_built(materials: dict[str, Path], tmp_path: Path) -> None:
    config = build_init(materials, llm=str(materials["llm"]))
    plan = plan_start(config)
    built = Pipeline.from_pretrained(initial_folder(config, tmp_path, seed=0), device="cpu")
    again = plan_start(InitConfig(mllm=str(tmp_path / "init")))
    for each in (plan, again):
        assert each.model_config.tokenizer_fingerprint == built.tokenizer.fingerprint
        assert each.model_config.text_config.to_dict() == built.model.config.text_config.to_dict()


def test_another_vocabulary_than_the_text_tokenizers_is_refused(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    save_language_model(tmp_path / "larger", tied=False, vocab_size=500)
    config = build_init(materials, llm=str(tmp_path / "larger"))
    with pytest.raises(ValueError, match="vocabulary, bos and eos"):
        plan_start(config)


def test_a_language_model_without_safetensors_is_refused(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    save_language_model(tmp_path / "llm", tied=False)
    (tmp_path / "llm" / "model.safetensors").rename(tmp_path / "llm" / "pytorch_model.bin")
    config = build_init(materials, llm=str(tmp_path / "llm"))
    with pytest.raises(FileNotFoundError, match="never unpickled"):
        plan_start(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "needs one of mllm, llm or llm_config"),
        ({"mllm": "nano", "llm": "x"}, "needs one of mllm, llm or llm_config"),
        ({"llm_config": {}}, "needs text_tokenizer"),
    ],
)
def test_a_start_must_be_named_once(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InitConfig.model_validate(values)


def test_the_text_tokenizer_travels_with_the_model(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_init(materials, llm=str(materials["llm"]))
    folder = initial_folder(config, tmp_path, seed=0)
    copied = TextTokenizer.from_file(Path(folder) / "tokenizer.model")
    assert copied.model_proto == tiny_tokenizer().model_proto
