"""Released files -> a folder that loads: the tokenizer's .pth, or the MLLM with its tokenizer."""

from os import PathLike
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from mllm.convert import convert_checkpoint as convert_mllm
from mllm.convert import read_codebooks
from mllm.pipeline import TOKENIZER_FOLDER
from mllm.text_tokenizer import TOKENIZER_FILE, TextTokenizer
from unitok.convert import convert_checkpoint as convert_tokenizer
from unitok.hub import CONFIG_FILE
from unitok.model import UniTok


def convert_released(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    revision: str | None = None,
    tokenizer: str | None = None,
    force: bool = False,
) -> str:
    """Convert a released file, folder or hub model; returns what it was.

    A .pth file is an image tokenizer. Anything else is an MLLM, which needs `tokenizer`, the
    converted tokenizer that it was trained on: a copy of it goes into the output, and the model
    remembers its fingerprint.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder to write to")
    if (folder / CONFIG_FILE).exists() and not force:
        raise FileExistsError(f"{folder} holds a model already; pass --force to overwrite it")
    path = find_released(source, revision)
    if path.is_file():
        convert_tokenizer(path).save_pretrained(folder)
        return "image tokenizer"
    if tokenizer is None:
        raise ValueError(
            f"{source} holds no .pth file, so it is an MLLM; name the converted tokenizer that it "
            "was trained on: --tokenizer FOLDER"
        )
    text_tokenizer = TextTokenizer.from_file(path / TOKENIZER_FILE)
    image_tokenizer = UniTok.from_pretrained(tokenizer)
    check_codebooks(read_codebooks(path), image_tokenizer, source=source)
    fingerprint = image_tokenizer.fingerprint
    convert_mllm(path, folder, tokenizer_fingerprint=fingerprint, force=force)
    text_tokenizer.save(folder)
    image_tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
    return "MLLM"


def find_released(source: str | PathLike[str], revision: str | None = None) -> Path:
    """The .pth file of a tokenizer or the folder of an MLLM, downloaded if it is a hub name."""
    path = Path(source)
    if path.exists() and revision is not None:
        raise ValueError(
            f"revision {revision!r} belongs to a hub model, but {source} is on this machine; "
            "leave the revision out"
        )
    if not path.exists():
        try:
            path = Path(snapshot_download(str(source), revision=revision))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise FileNotFoundError(
                f"no released files at {source} ({type(error).__name__}); expected a .pth file, "
                "a folder, or a hub name such as OWNER/NAME"
            ) from error
    checkpoints = sorted(path.glob("*.pth")) if path.is_dir() else []
    if len(checkpoints) > 1:
        names = ", ".join(each.name for each in checkpoints)
        raise ValueError(f"{source} holds several checkpoints; name one of {names}")
    return checkpoints[0] if checkpoints else path


def check_codebooks(codebooks_KVD: Tensor, tokenizer: UniTok, *, source: object) -> None:
    """Refuse a tokenizer whose codes mean something else to the MLLM.

    The MLLM keeps the frozen codebooks that it was trained on, rounded to its own type.
    """
    theirs = tokenizer.quantizer.codebooks_KVD.detach()
    is_same = theirs.shape == codebooks_KVD.shape and torch.equal(
        theirs.to(codebooks_KVD.dtype), codebooks_KVD
    )
    if not is_same:
        raise ValueError(
            f"the codebooks of {source}, {tuple(codebooks_KVD.shape)}, are not those of the "
            f"tokenizer {tokenizer.fingerprint}, {tuple(theirs.shape)}; name the converted "
            "tokenizer that it was trained on: --tokenizer FOLDER"
        )
