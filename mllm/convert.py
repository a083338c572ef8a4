"""Released MLLM weights -> our config.json + safetensors, one shard in memory at a time.

The only file of this package that knows the official names. Everything is checked by name and
shape before the first file is written.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig

from mllm.config import UniTokMLLMConfig
from mllm.model import UniTokMLLM
from unitok.checkpoint import Layout, check_layout
from unitok.files import atomic_write, read_json

# (official, ours), longest first where one contains the other
PREFIXES = (
    ("model.multi_embedder.attn_projection.", "visual_embedder.projection."),
    ("model.multi_embedder.mm_projector.", "visual_embedder.mlp."),
    ("ar_head.linear_head.", "visual_head.to_logits."),
    ("ar_head.codebooks.", "visual_head.sub_code_embeds."),
    ("ar_head.", "visual_head.decoder."),
    ("model.", "decoder."),
    ("lm_head.", "lm_head."),
)
OFFICIAL_CODEBOOK = "model.multi_embedder.quantizer.codebooks.{}.{}"
CODEBOOK_KEY = re.compile(r"model\.multi_embedder\.quantizer\.codebooks\.(\d+)\.(.+)")
OUR_CODEBOOKS = {
    "codebook.weight": "visual_embedder.quantizer.codebooks_KVD",
    "vocab_usage": "visual_embedder.quantizer.vocab_usage_KV",
}
ZERO_BIAS = "model.multi_embedder.attn_projection.attn.zero_k_bias"  # stands for the key bias
PROJECTION_HEADS = 16  # fixed in the official code
DECODER_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)
DECODER_OPTIONS = (
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "hidden_act",
    "attention_bias",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
)
PAD_TOKEN_ID = 0  # LLaMA-2's unk; the released settings may leave it out


def convert_key(official: str) -> str:
    """Our name of an official key; an unknown one passes through."""
    for theirs, ours in PREFIXES:
        if official.startswith(theirs):
            return ours + official.removeprefix(theirs)
    return official


def convert_state_dict(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names -> ours; unknown ones pass through, for a strict load to name them."""
    ours: dict[str, Tensor] = {}
    codebooks: dict[str, dict[int, Tensor]] = {}
    for key, value in official.items():
        match = CODEBOOK_KEY.fullmatch(key)
        if match and match[2] in OUR_CODEBOOKS:
            codebooks.setdefault(OUR_CODEBOOKS[match[2]], {})[int(match[1])] = value
        elif key != ZERO_BIAS:
            ours[convert_key(key)] = value
    for key, books in codebooks.items():
        ours[key] = torch.stack([books[index] for index in sorted(books)])
    return ours


def convert_config(
    settings: Mapping[str, Any],
    layout: Layout,
    *,
    grid: tuple[int, int] = (16, 16),
    tokenizer_fingerprint: str | None = None,
) -> UniTokMLLMConfig:
    """The released config.json and the shapes of the weights as our config."""
    if missing := [name for name in DECODER_SIZES if name not in settings]:
        raise ValueError(f"the released config.json lacks {', '.join(missing)}")
    decoder = {name: settings[name] for name in DECODER_SIZES}
    decoder |= {name: settings[name] for name in DECODER_OPTIONS if settings.get(name) is not None}
    decoder["pad_token_id"] = settings.get("pad_token_id") or PAD_TOKEN_ID
    size, width = _shape(layout, OFFICIAL_CODEBOOK.format(0, "codebook.weight"))
    return UniTokMLLMConfig(
        text_config=LlamaConfig(**decoder),
        num_codebooks=_count(layout, OFFICIAL_CODEBOOK.format(r"\d+", r"codebook\.weight")),
        codebook_size=size,
        codebook_dim=width,
        grid=grid,
        projection_dim=_shape(layout, "model.multi_embedder.attn_projection.proj.weight")[0],
        projection_heads=PROJECTION_HEADS,
        head_layers=_count(layout, r"ar_head\.layers\.\d+\.input_layernorm\.weight"),
        tokenizer_fingerprint=tokenizer_fingerprint,
    )


def official_layout(config: UniTokMLLMConfig) -> Layout:
    """Every official key, with its shape, that a model of this config must have."""
    with torch.device("meta"):
        ours = UniTokMLLM(config).state_dict()
    layout: Layout = {ZERO_BIAS: (config.projection_dim,)}
    names = {ours: theirs for theirs, ours in OUR_CODEBOOKS.items()}
    for key, value in ours.items():
        if key in names:
            for index in range(config.num_codebooks):
                layout[OFFICIAL_CODEBOOK.format(index, names[key])] = tuple(value.shape[1:])
        else:
            theirs, prefix = next(pair for pair in PREFIXES if key.startswith(pair[1]))
            layout[theirs + key.removeprefix(prefix)] = tuple(value.shape)
    return layout


def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    *,
    dtype: torch.dtype | None = None,
    grid: tuple[int, int] = (16, 16),
    tokenizer_fingerprint: str | None = None,
    force: bool = False,
) -> UniTokMLLMConfig:
    """Convert the folder `source` into the folder `output`, which `from_pretrained` then loads.

    The numbers keep their type unless `dtype` names another one. Raises ValueError for weights
    that are not those of a released model and FileExistsError unless `force`.
    """
    source, output = Path(source), Path(output)
    if output.resolve() == source.resolve():
        raise ValueError(f"cannot convert {source} into itself; name another folder to write to")
    if (output / "config.json").exists() and not force:
        raise FileExistsError(f"{output} holds a model already; pass --force to overwrite it")
    shards = find_shards(source)
    layout = read_layout(shards)
    settings = read_json(source / "config.json")
    config = convert_config(
        settings, layout, grid=grid, tokenizer_fingerprint=tokenizer_fingerprint
    )
    check_layout(layout, official_layout(config), source=source)
    output.mkdir(parents=True, exist_ok=True)
    _remove_old_model(output)
    config.dtype = _write_shards(shards, output, dtype=dtype)
    config.architectures = [UniTokMLLM.__name__]
    text_config = config.text_config
    GenerationConfig(
        bos_token_id=text_config.bos_token_id,
        eos_token_id=text_config.eos_token_id,
        pad_token_id=text_config.pad_token_id,
    ).save_pretrained(output)
    # Last, so that a conversion that stopped half way cannot be loaded.
    config.save_pretrained(output)
    return config


def find_shards(folder: Path) -> list[Path]:
    """The weight files of a released folder, safetensors before .bin."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted(set(read_json(index).get("weight_map", {}).values()))
            if not files:
                raise ValueError(f"{index} names no weight files; download it again")
            shards = [folder / Path(file).name for file in files]
            if missing := [shard.name for shard in shards if not shard.is_file()]:
                raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; download it again")
            return shards
        if (folder / name).is_file():
            return [folder / name]
    raise FileNotFoundError(
        f"no released weights in {folder}; expected model*.safetensors or pytorch_model*.bin"
    )


def read_layout(shards: Iterable[Path]) -> Layout:
    """Names and shapes of all shards, without reading the numbers."""
    layout: Layout = {}
    for shard in shards:
        for key, shape in _read_shapes(shard):
            if key in layout:
                raise ValueError(f"{key} stands in two weight files of {shard.parent}")
            layout[key] = shape
    return layout


def read_codebooks(folder: str | Path) -> Tensor:
    """The codebooks (K, V, codebook_dim) that a released MLLM looks its codes up in."""
    books: dict[int, Tensor] = {}
    for shard in find_shards(Path(folder)):
        for key, value in _read_shard(shard, only="quantizer.codebooks").items():
            match = CODEBOOK_KEY.fullmatch(key)
            if match and match[2] == "codebook.weight":
                books[int(match[1])] = value
    if not books:
        raise ValueError(f"{folder} holds no codebooks, as a released UniTok MLLM would")
    return torch.stack([books[index] for index in sorted(books)])


def _read_shapes(shard: Path) -> list[tuple[str, tuple[int, ...]]]:
    if shard.suffix != ".safetensors":
        return [(key, tuple(value.shape)) for key, value in _load_bin(shard).items()]
    with _open_safetensors(shard) as file:
        return [(key, tuple(file.get_slice(key).get_shape())) for key in file.keys()]  # noqa: SIM118


def _read_shard(shard: Path, *, only: str = "") -> dict[str, Tensor]:
    """The tensors of a file whose names contain `only`."""
    if shard.suffix != ".safetensors":
        return {key: value for key, value in _load_bin(shard).items() if only in key}
    with _open_safetensors(shard) as file:
        return {key: file.get_tensor(key) for key in file.keys() if only in key}  # noqa: SIM118


def _open_safetensors(shard: Path) -> Any:
    try:
        return safe_open(shard, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{shard} is damaged ({error}); download it again") from error


def _load_bin(shard: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(shard, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        # torch explains itself in paragraphs.
        raise ValueError(
            f"{shard} is no torch file that can be read safely, or a damaged one; download it again"
        ) from error
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise ValueError(f"{shard} holds no tensors by name; expected a released pytorch_model.bin")
    return weights


def _remove_old_model(folder: Path) -> None:
    """Take away what an earlier conversion left: files of other names would be loaded instead."""
    for path in (folder / "config.json", *folder.glob("model*.safetensors*")):
        path.unlink(missing_ok=True)


def _write_shards(shards: list[Path], output: Path, *, dtype: torch.dtype | None) -> torch.dtype:
    """Write one file of ours per official one, and their index; returns the numbers' type."""
    weight_map: dict[str, str] = {}
    total_size = 0
    codebooks: dict[str, Tensor] = {}
    for number, shard in enumerate(shards, start=1):
        official = _read_shard(shard)
        # Codebooks may be spread over files: they wait for the last one, to be stacked there.
        codebooks |= {key: value for key, value in official.items() if CODEBOOK_KEY.match(key)}
        official = {key: value for key, value in official.items() if key not in codebooks}
        if number == len(shards):
            official |= codebooks
        ours = {
            key: value.to(dtype or value.dtype).contiguous()
            for key, value in convert_state_dict(official).items()
        }
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with atomic_write(output / name) as path:
            save_file(ours, path, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(ours, name)
        total_size += sum(value.numel() * value.element_size() for value in ours.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        with atomic_write(output / "model.safetensors.index.json") as path:
            path.write_text(json.dumps(index, indent=2) + "\n")
    return next(iter(ours.values())).dtype


def _shape(layout: Layout, key: str) -> tuple[int, ...]:
    if key not in layout:
        raise ValueError(f"the weights are not those of a released UniTok MLLM: missing {key}")
    return layout[key]


def _count(layout: Layout, pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, key)) for key in layout)
