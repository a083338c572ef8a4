"""Sources of training data, opened: their samples one by one.

Whatever a source looks like, it gives `RawSample`s, with pictures still as files, bytes or codes,
and a `BadSample` in the place of each that cannot be used.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch

from mllm.messages import Message, split_system
from mllm.text_tokenizer import clean_text
from train.code_shards import PictureCodes
from train.source_config import (
    DatasetsConfig,
    LlavaConfig,
    OfficialConfig,
    SourceConfig,
    TextConfig,
    WebdatasetConfig,
)
from train.source_files import (
    KEY,
    BadRow,
    Row,
    Table,
    open_table,
    open_tars,
)
from train.tar_members import PICTURE_SUFFIXES

IMAGE_MARK = "<image>"  # where a picture stands in the text of a conversation
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}  # LLaVA's and ours
MAX_QUOTED = 60  # characters of a wrong value in a message

RawPicture: TypeAlias = Path | bytes | PictureCodes
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class RawSample:
    """A sample before its pictures are encoded; it becomes one row for each task."""

    id: str
    tasks: tuple[str, ...]
    texts: tuple[str, ...] = ()
    messages: list[Message] | None = None
    pictures: tuple[RawPicture, ...] = ()


@dataclass(frozen=True)
class BadSample:
    """A sample that was left out."""

    id: str
    reason: str


class Source:
    """A source, opened: samples 0 to len - 1."""

    def __init__(
        self, config: SourceConfig, table: Table, convert: Callable[[str, Row], RawSample]
    ) -> None:
        """`convert` as in `convert_row`."""
        self.config = config
        self._table = table
        self._convert = convert

    def __len__(self) -> int:
        return len(self._table)

    def read(self, start: int, stop: int) -> Iterator[RawSample | BadSample]:
        """The samples `start` to `stop - 1`, read as they are asked for."""
        for number, row in enumerate(self._table.read(start, stop), start=start):
            yield convert_row(row, f"{number:09d}", self._convert)


def convert_row(
    row: Row | BadRow, number: str, convert: Callable[[str, Row], Sample]
) -> Sample | BadSample:
    """`convert(id, row)`; its ValueError is why the sample is bad.

    A row without an id of its own is called `number`.
    """
    if isinstance(row, BadRow):
        return BadSample(row.name or number, row.reason)
    given = row.get("id", row.get(KEY))
    name = number if given is None or given == "" else str(given)
    try:
        return convert(_checked_text(name), row)
    except ValueError as error:
        return BadSample(_printable(name), _printable(str(error)))


def open_source(
    config: SourceConfig,
    *,
    index_folder: Path,
    num_codebooks: int,
    codebook_size: int,
    first: float = 0.0,
    limit: int | None = None,
) -> Source:
    """Open the files of a source and check what can be checked before the first sample.

    `index_folder` keeps what is known of tars; `first` and `limit` as in `open_tars`.
    """
    if isinstance(config, WebdatasetConfig):
        tars = open_tars(config.path, index_folder=index_folder, first=first, limit=limit)
        return Source(config, tars, partial(_tar_sample, config))
    check_folder(getattr(config, "images", None))
    if isinstance(config, DatasetsConfig):
        table = open_table(config.path, split=config.split, subset=config.subset)
        check_columns(config.path, table, [config.image, *config.text])
        return Source(config, table, partial(_table_sample, config))
    if isinstance(config, TextConfig):
        table = open_table(config.path, split=config.split, subset=config.subset)
        check_columns(config.path, table, [config.text])
        return Source(config, table, partial(_document, config))
    table = open_table(config.path)
    if isinstance(config, LlavaConfig):
        return Source(config, table, partial(_llava_sample, config))
    read = partial(read_official_codes, num_codebooks=num_codebooks, codebook_size=codebook_size)
    assert isinstance(config, OfficialConfig)
    return Source(config, table, partial(_official_sample, config, read))


def conversation_messages(turns: Any, num_pictures: int) -> list[Message]:
    """LLaVA's `conversations` as messages; each mark becomes a picture part."""
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise ValueError(f"no conversation: expected a list of turns, got {_quoted(turns)}")
    messages = [_message(turn) for turn in turns]
    turns_only, _ = split_system(messages)
    num_marks = sum(part["type"] == "image" for turn in turns_only for part in turn["content"])
    if num_marks != num_pictures:
        raise ValueError(f"{num_marks} {IMAGE_MARK} marks for {num_pictures} pictures")
    if not any(turn["role"] == "assistant" and turn["content"] for turn in turns_only):
        raise ValueError("no text: the conversation has no answer to learn from")
    return messages


def tar_pair(row: Row, fields: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """Picture and captions of a tar's sample: in `fields` of its .json, or its .txt without them.

    Raises ValueError for a sample that lacks one of them.
    """
    pictures = [row[key] for key in row if key.rpartition(".")[2] in PICTURE_SUFFIXES]
    if len(pictures) != 1:
        raise ValueError(f"{len(pictures)} pictures under the name, expected one")
    if fields:
        return pictures[0], _captions(_json_member(row), fields)
    if "txt" not in row:
        raise ValueError("no text: no .txt under the name; name the captions' .json fields in text")
    return pictures[0], _captions({"txt": row["txt"].decode("utf-8")}, ("txt",))


def table_pair(
    row: Row, *, image: str, text: Sequence[str], images: Path | None
) -> tuple[bytes | Path, tuple[str, ...]]:
    """Picture and captions of a table's row, by their columns; names of pictures are in `images`.

    Raises ValueError for a row that lacks one of them.
    """
    texts = _captions(row, text)
    value = row.get(image)
    if isinstance(value, Mapping):  # as the `datasets` library stores pictures
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value, texts
    if isinstance(value, str) and value:
        return (images or Path()) / value, texts
    raise ValueError(f"no picture in {image!r}, got {_quoted(value)}")


def check_folder(images: Path | None) -> None:
    """Raise FileNotFoundError for a folder of pictures that is not there."""
    if images is not None and not images.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {images}; check `images`")


def check_columns(path: str, table: Table, columns: Sequence[str]) -> None:
    """Raise ValueError for a column that the table lacks, where tables have columns."""
    if table.columns is None:
        return
    if missing := [column for column in columns if column not in table.columns]:
        raise ValueError(
            f"{path} has no column {missing[0]!r}, only {', '.join(table.columns)}; "
            "name the right ones in the source"
        )


def read_official_codes(
    value: Any, *, num_codebooks: int, codebook_size: int
) -> list[PictureCodes]:
    """Official codes (K, L) or (B, K, L), nested lists or a JSON string of them, for B pictures.

    The pictures are squares, as all official ones.
    """
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        parts = [_parse_codes(each, num_codebooks, codebook_size) for each in value]
        return [codes for part in parts for codes in part]
    return _parse_codes(value, num_codebooks, codebook_size)


# -- samples of each kind ----------------------------------------------------------------------


def _llava_sample(config: LlavaConfig, name: str, row: Row) -> RawSample:
    images = row.get("image")
    names = [] if images is None else [images] if isinstance(images, str) else images
    if not isinstance(names, list) or not all(isinstance(each, str) and each for each in names):
        raise ValueError(f"image must be a file name or a list of them, got {_quoted(images)}")
    messages = conversation_messages(row.get("conversations"), len(names))
    pictures = tuple((config.images or Path()) / each for each in names)
    if config.task == "image_to_text":
        texts = (_answered_caption(messages),)
        return RawSample(name, (config.task,), texts=texts, pictures=pictures)
    return RawSample(name, (config.task,), messages=messages, pictures=pictures)


def _tar_sample(config: WebdatasetConfig, name: str, row: Row) -> RawSample:
    picture, texts = tar_pair(row, config.text)
    return RawSample(name, config.task, texts=texts, pictures=(picture,))


def _table_sample(config: DatasetsConfig, name: str, row: Row) -> RawSample:
    picture, texts = table_pair(row, image=config.image, text=config.text, images=config.images)
    return RawSample(name, config.task, texts=texts, pictures=(picture,))


def _official_sample(
    config: OfficialConfig, read: Callable[[Any], list[PictureCodes]], name: str, row: Row
) -> RawSample:
    pictures = tuple(read(row[config.codes])) if row.get(config.codes) is not None else ()
    if row.get(config.conversations) is not None:
        messages = conversation_messages(row[config.conversations], len(pictures))
        return RawSample(name, ("chat",), messages=messages, pictures=pictures)
    if len(pictures) != 1:
        raise ValueError(f"{len(pictures)} pictures in {config.codes!r} for a caption, expected 1")
    return RawSample(name, config.task, texts=_captions(row, config.text), pictures=pictures)


def _document(config: TextConfig, name: str, row: Row) -> RawSample:
    return RawSample(name, ("text",), texts=_captions(row, (config.text,)))


# -- parts of a sample -------------------------------------------------------------------------


def _message(turn: Any) -> Message:
    sender = turn.get("from") if isinstance(turn, Mapping) else None
    if sender not in ROLES:
        raise ValueError(f"a turn must come from {', '.join(ROLES)}, got {_quoted(sender or turn)}")
    parts: list[dict[str, str]] = []
    for number, text in enumerate(_checked_text(turn.get("value")).split(IMAGE_MARK)):
        if number:
            parts.append({"type": "image", "text": ""})
        if clean_text(text):
            parts.append({"type": "text", "text": text.strip()})
    return {"role": ROLES[sender], "content": parts}


def _answered_caption(messages: Sequence[Message]) -> str:
    """The answer to the one question about a picture; what was asked is left out."""
    parts = [(message["role"], part) for message in messages for part in message["content"]]
    shown = [role for role, part in parts if part["type"] == "image"]
    answers = [part["text"] for role, part in parts if role == "assistant" and part["text"]]
    if shown != ["user"] or len(answers) != 1:
        raise ValueError(
            f"{len(shown)} pictures and {len(answers)} answers, a caption is one answer about one "
            "picture; such conversations are for task chat"
        )
    return str(answers[0])


def _captions(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    """The texts in these columns, each one or a list, without empty ones."""
    texts: list[str] = []
    for column in columns:
        value = row.get(column)
        values = value if isinstance(value, list) else [value]
        texts += [_checked_text(each) for each in values if each is not None]
    filled = tuple(text.strip() for text in texts if clean_text(text))
    if not filled:
        raise ValueError(f"no text in {' or '.join(map(repr, columns))}")
    return filled


def _checked_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text was expected, got {_quoted(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text has half a character (a lone surrogate)") from error
    return value


def _json_member(row: Row) -> dict[str, Any]:
    try:
        content = json.loads(row.get("json", b""))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no text: the .json under the name cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError("no text: the .json under the name holds no object")
    return content


def _parse_codes(value: Any, num_codebooks: int, codebook_size: int) -> list[PictureCodes]:
    try:
        codes = np.array(json.loads(value) if isinstance(value, str) else value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"codes must be nested lists of one size, got {_quoted(value)}") from error
    codes_BKL = codes[None] if codes.ndim == 2 else codes
    num_tokens = codes.shape[-1] if codes.ndim else 0
    side = math.isqrt(num_tokens)
    is_square = codes.size > 0 and side**2 == num_tokens
    if codes_BKL.ndim != 3 or codes_BKL.shape[1] != num_codebooks or not is_square:
        raise ValueError(
            f"codes must be (K, L) or (B, K, L) with K = {num_codebooks} and L a square, "
            f"got {codes.shape}"
        )
    if codes.dtype.kind != "i" or codes.min() < 0 or codes.max() >= codebook_size:
        found = f"{codes.min()} to {codes.max()}" if codes.dtype.kind in "iuf" else codes.dtype
        raise ValueError(
            f"codes must be whole numbers from 0 to {codebook_size - 1}, got {found}; they belong "
            "to another tokenizer or are damaged"
        )
    codes_BLK = torch.from_numpy(codes_BKL.astype(np.int64)).transpose(1, 2)
    return [PictureCodes(codes_LK.contiguous(), (side, side)) for codes_LK in codes_BLK]


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def _printable(text: str) -> str:
    """Text that a JSON file can hold, whatever a damaged sample contained."""
    return text.encode("utf-8", "replace").decode()
