"""What a model's folder holds: sizes, parameters and the weights' fingerprint."""

from collections import Counter
from math import prod
from os import PathLike
from pathlib import Path

from torch import Tensor

from mllm.config import UniTokMLLMConfig
from mllm.image_tokenizer import TOKENIZER_TYPE, find_tokenizer
from mllm.model import NANO_FOLDER
from unitok.checkpoint import find_weights, load_folder
from unitok.config import PATCH_SIZE, UniTokConfig
from unitok.fingerprint import fingerprint
from unitok.hub import CONFIG_FILE, model_type, resolve_model
from unitok.model import NANO_FOLDER as NANO_TOKENIZER_FOLDER

Rows = list[tuple[str, str]]
MLLM_TYPE = str(UniTokMLLMConfig.model_type)


def describe_model(name: str | PathLike[str], *, revision: str | None = None) -> Rows:
    """Names and values of what there is to know about `nano`, a folder or a hub name.

    An MLLM is described together with its image tokenizer. No network is built, so that a large
    model is described as fast as a small one.
    """
    folder = resolve_model(
        str(name),
        nano_folder=NANO_FOLDER,
        expected_type=(MLLM_TYPE, TOKENIZER_TYPE),
        revision=revision,
    )
    if model_type(folder) == TOKENIZER_TYPE:
        return _describe_tokenizer(folder)
    tokenizer = resolve_model(
        find_tokenizer(folder), nano_folder=NANO_TOKENIZER_FOLDER, expected_type=TOKENIZER_TYPE
    )
    return [*_describe_mllm(folder), *_describe_tokenizer(tokenizer)]


def _describe_mllm(folder: Path) -> Rows:
    config = UniTokMLLMConfig.from_pretrained(folder)
    text = config.text_config
    weights = load_folder(folder)
    rows, columns = config.grid
    return [
        ("model", str(folder)),
        ("type", f"MLLM, {config.chat_template_name} template"),
        ("decoder", f"{text.num_hidden_layers} layers of width {text.hidden_size}"),
        ("visual head", f"{config.head_layers} layers of width {text.hidden_size}"),
        ("text vocabulary", str(text.vocab_size)),
        ("context", f"{text.max_position_embeddings} tokens"),
        (
            "drawn picture",
            f"{rows} x {columns} visual tokens of {config.num_codebooks} codes, "
            f"{columns * PATCH_SIZE} x {rows * PATCH_SIZE} px",
        ),
        *_describe_weights(weights, folder),
        ("trained on tokenizer", config.tokenizer_fingerprint or "not named"),
    ]


def _describe_tokenizer(folder: Path) -> Rows:
    config = UniTokConfig.from_json(folder / CONFIG_FILE)
    side = config.image_size // PATCH_SIZE
    return [
        ("tokenizer", str(folder)),
        (
            "image size",
            f"{config.image_size} x {config.image_size} px, {side} x {side} visual tokens",
        ),
        (
            "codebooks",
            f"{config.num_codebooks} of {config.codebook_size} entries, {config.codebook_dim} wide",
        ),
        ("encoder, decoder", f"{config.depth} layers of width {config.width}"),
        *_describe_weights(load_folder(folder), folder),
    ]


def _describe_weights(weights: dict[str, Tensor], folder: Path) -> Rows:
    size = sum(path.stat().st_size for path in find_weights(folder))
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in weights.values()})
    return [
        ("parameters", f"{sum(prod(value.shape) for value in weights.values()):,}"),
        *((f"  {part}", f"{count:,}") for part, count in _count_by_part(weights).items()),
        ("weights on disk", f"{size / 1e6:,.1f} MB, {', '.join(dtypes)}"),
        ("fingerprint", fingerprint(weights)),
    ]


def _count_by_part(weights: dict[str, Tensor]) -> dict[str, int]:
    """Parameters of each part of a model, the largest part first."""
    counts: Counter[str] = Counter()
    for key, value in weights.items():
        counts[key.partition(".")[0].replace("_", " ")] += prod(value.shape)
    return dict(counts.most_common())
