"""The image tokenizer of an MLLM: loaded, found beside it, and refused if it is another one.

Shapes: K codebooks, V codebook size, D width of an entry.
"""

from pathlib import Path

import torch
from torch import Tensor

from mllm.devices import choose_device, choose_dtype, explain_out_of_memory, load_remedy
from mllm.model import UniTokMLLM
from unitok.hub import NANO, resolve_model
from unitok.model import NANO_FOLDER, UniTok

TOKENIZER_FOLDER = "unitok"  # inside an MLLM's folder
TOKENIZER_TYPE = "unitok"


def load_tokenizer(
    name: str = NANO,
    *,
    revision: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = torch.float32,
) -> UniTok:
    """The image tokenizer `nano`, of a folder or of a hub name, where and as it shall run."""
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    folder = resolve_model(
        name, nano_folder=NANO_FOLDER, expected_type=TOKENIZER_TYPE, revision=revision
    )
    with explain_out_of_memory(f"loading {name}", load_remedy(folder, dtype)):
        return UniTok.from_pretrained(folder, device=device, dtype=dtype)


def compile_tokenizer(tokenizer: UniTok) -> None:
    """Compile encoder and decoder, for many pictures of one size; the first one takes minutes.

    Weights and their names stay. So does the quantizer: which entry is nearest must not depend on
    how products are fused. Meant for GPUs; on a CPU, embedded nano gained nothing by it.
    """
    tokenizer.to(memory_format=torch.channels_last)
    for part in (tokenizer.encoder, tokenizer.decoder):
        part.compile()


def find_tokenizer(folder: Path) -> str:
    """The image tokenizer that a model's folder brings along, else the embedded one."""
    inside = folder / TOKENIZER_FOLDER
    return str(inside) if inside.is_dir() else NANO


def has_codebooks(tokenizer: UniTok, codebooks_KVD: Tensor) -> bool:
    """Whether an MLLM's frozen codebooks, rounded to its own type, are those of `tokenizer`.

    Codes of other codebooks mean something else to the MLLM, and nothing would show it.
    """
    theirs = tokenizer.quantizer.codebooks_KVD.detach()
    return theirs.shape == codebooks_KVD.shape and torch.equal(
        theirs.to(codebooks_KVD.dtype).cpu(), codebooks_KVD.detach().cpu()
    )


def check_tokenizer(model: UniTokMLLM, tokenizer: UniTok) -> None:
    """Refuse an image tokenizer that `model` was not trained on."""
    expected = model.config.tokenizer_fingerprint
    if expected is None:
        if has_codebooks(tokenizer, model.visual_embedder.quantizer.codebooks_KVD):
            return
        raise ValueError(
            "the model names no tokenizer, and the codebooks of the one given are not its own; "
            "convert the model again together with its tokenizer"
        )
    if tokenizer.fingerprint != expected:
        raise ValueError(
            f"the model was trained on the codes of tokenizer {expected}, got tokenizer "
            f"{tokenizer.fingerprint}; name the right one (--tokenizer FOLDER)"
        )


def check_codebooks(codebooks_KVD: Tensor, tokenizer: UniTok, *, source: object) -> None:
    """Refuse an image tokenizer whose codebooks are not those of the released MLLM `source`."""
    if not has_codebooks(tokenizer, codebooks_KVD):
        shape = tuple(tokenizer.quantizer.codebooks_KVD.shape)
        raise ValueError(
            f"the codebooks of {source}, {tuple(codebooks_KVD.shape)}, are not those of the "
            f"tokenizer {tokenizer.fingerprint}, {shape}; name the converted "
            "tokenizer that it was trained on: --tokenizer FOLDER"
        )
