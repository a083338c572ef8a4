"""Released files -> a folder that loads: the tokenizer's .pth, or the MLLM with its tokenizer."""

from os import PathLike
from pathlib import Path

from huggingface_hub import snapshot_download

from mllm.convert import convert_checkpoint as convert_mllm
from mllm.convert import read_codebooks
from mllm.image_tokenizer import TOKENIZER_FOLDER, check_codebooks
from mllm.text_tokenizer import TOKENIZER_FILE, TextTokenizer
from unitok.convert import convert_checkpoint as convert_tokenizer
from unitok.hub import CONFIG_FILE, explain_download
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
        expected = "expected a released .pth file, a folder, or a hub name such as OWNER/NAME"
        with explain_download(str(source), revision=revision, expected=expected) as local_only:
            path = Path(
                snapshot_download(str(source), revision=revision, local_files_only=local_only)
            )
    checkpoints = sorted(path.glob("*.pth")) if path.is_dir() else []
    if len(checkpoints) > 1:
        names = ", ".join(each.name for each in checkpoints)
        raise ValueError(f"{source} holds several checkpoints; name one of {names}")
    return checkpoints[0] if checkpoints else path
