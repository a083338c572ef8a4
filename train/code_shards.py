"""Code shards: training samples whose pictures are codes, in Parquet, with a manifest.

A folder holds manifest.json, bad_samples.jsonl and shards/*.parquet. A row is one sample for one
task; its pictures stand in reading order.

Shapes: L visual tokens (h*w, row-major), K codebooks.
"""

import bisect
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from eval.file_hashes import sha256_of
from mllm.messages import Message
from unitok.files import atomic_write, read_json

FORMAT = "unitok-code-shards"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
BAD_SAMPLES_FILE = "bad_samples.jsonl"
SHARDS_FOLDER = "shards"
TASKS = ("image_to_text", "text_to_image", "text", "chat")

# Rows that are read together: measured, 64 rows of one picture take 1 ms and 3.2 KB a row.
ROWS_PER_GROUP = 64
MAX_OPEN_SHARDS = 128
MAX_CACHED_GROUPS = 16

_PICTURE = pa.struct([("codes", pa.list_(pa.uint16())), ("grid", pa.list_(pa.int32()))])
_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.list_(_PART))])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("messages", pa.list_(_MESSAGE)),
        ("pictures", pa.list_(_PICTURE)),
        ("source", pa.string()),
    ]
)
_CODES_COLUMN = "pictures.list.element.codes.list.element"


@dataclass(frozen=True, eq=False)
class PictureCodes:
    """The codes of one picture."""

    codes: Tensor  # int64 (L, K)
    grid: tuple[int, int]  # rows and columns of visual tokens


@dataclass(frozen=True, eq=False)
class CodeRow:
    """One training row."""

    id: str
    task: str  # one of TASKS
    texts: tuple[str, ...]  # captions, or the document; none for a chat
    messages: list[Message] | None  # a chat's; an image part is {"type": "image", "text": ""}
    pictures: tuple[PictureCodes, ...]
    source: str


@dataclass(frozen=True)
class Shard:
    """One Parquet file of the folder."""

    file: str  # shards/NAME.parquet
    source: str
    rows_per_task: Mapping[str, int]
    sha256: str

    @property
    def num_rows(self) -> int:
        return sum(self.rows_per_task.values())


@dataclass(frozen=True)
class CodeOrigin:
    """Which tokenizer made the codes."""

    tokenizer_fingerprint: str
    num_codebooks: int
    codebook_size: int


def write_shard(path: Path, rows: Sequence[CodeRow]) -> str:
    """Write rows in one step, the same rows always as the same bytes; returns their SHA-256."""
    table = pa.Table.from_pylist([_stored(row) for row in rows], SCHEMA)
    with atomic_write(path) as temporary:
        pq.write_table(
            table,
            temporary,
            row_group_size=ROWS_PER_GROUP,
            compression="zstd",
            use_dictionary=["task", "source"],
            # Parquet holds uint16 in four bytes; split by byte, the empty ones cost nothing.
            column_encoding={_CODES_COLUMN: "BYTE_STREAM_SPLIT"},
        )
        return sha256_of(temporary)


def write_manifest(
    folder: Path, origin: CodeOrigin, shards: Sequence[Shard], *, num_bad_samples: int
) -> None:
    """Write manifest.json, which makes the folder complete."""
    per_task, per_source = Counter[str](), Counter[str]()
    for shard in shards:
        per_task.update(shard.rows_per_task)
        per_source[shard.source] += shard.num_rows
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **asdict(origin),
        "num_rows": per_task.total(),
        "rows_per_task": {task: per_task[task] for task in TASKS if per_task[task]},
        "rows_per_source": dict(per_source),
        "num_bad_samples": num_bad_samples,
        "shards": [
            {
                "file": shard.file,
                "source": shard.source,
                "num_rows": shard.num_rows,
                "rows_per_task": dict(shard.rows_per_task),
                "sha256": shard.sha256,
            }
            for shard in shards
        ],
    }
    with atomic_write(folder / MANIFEST_FILE) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


class CodeShards:
    """Reads a finished folder: `shards.row(index)` for indices 0 to len - 1.

    Rows are read from memory-mapped files when they are asked for. Objects can be copied into
    worker processes: they hold no open files.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        tokenizer_fingerprint: str | None = None,
        source: str | None = None,
    ) -> None:
        """`tokenizer_fingerprint`: refuse codes of another tokenizer. `source`: its rows only."""
        self.folder = Path(folder)
        manifest = _read_manifest(self.folder / MANIFEST_FILE)
        self.origin, self.shards = _parse_manifest(self.folder / MANIFEST_FILE, manifest)
        if source is not None:
            self.shards = _shards_of(self.folder, self.shards, source)
        self._starts = list(accumulate((shard.num_rows for shard in self.shards), initial=0))
        made_by = self.origin.tokenizer_fingerprint
        if tokenizer_fingerprint not in (None, made_by):
            raise ValueError(
                f"the codes in {folder} were extracted with tokenizer {made_by}, the model has "
                f"{tokenizer_fingerprint}; extract them again with the model's tokenizer"
            )
        for shard in self.shards:
            if not (self.folder / shard.file).is_file():
                raise FileNotFoundError(
                    f"{self.folder} has lost {shard.file}; extract again, the rest is kept"
                )

    def __len__(self) -> int:
        return self._starts[-1]

    def row(self, index: int) -> CodeRow:
        """Row `index` with its codes as int64 (L, K)."""
        if not 0 <= index < len(self):
            raise IndexError(f"row must be 0 to {len(self) - 1}, got {index}")
        number = bisect.bisect_right(self._starts, index) - 1
        path = self.folder / self.shards[number].file
        group, place = divmod(index - self._starts[number], ROWS_PER_GROUP)
        try:
            table = _read_group(path, group)
            return _loaded(table, place, self.origin.num_codebooks)
        except (pa.ArrowException, OSError, IndexError) as error:
            raise ValueError(
                f"{path} is damaged ({error}); delete it and extract again, the rest is kept"
            ) from error

    def verify(self) -> None:
        """Read every shard in full; ValueError names those that changed since they were written."""
        changed = [
            shard.file
            for shard in self.shards
            if sha256_of(self.folder / shard.file) != shard.sha256
        ]
        if changed:
            raise ValueError(
                f"{len(changed)} of {len(self.shards)} shards in {self.folder} are not as they "
                f"were written: {', '.join(changed)}; delete them and extract again, the rest is "
                "kept"
            )


def _stored(row: CodeRow) -> dict[str, Any]:
    if row.task not in TASKS:
        raise ValueError(f"the task of a row must be one of {', '.join(TASKS)}, got {row.task!r}")
    pictures = [
        {"codes": picture.codes.flatten().numpy().astype(np.uint16), "grid": list(picture.grid)}
        for picture in row.pictures
    ]
    return {
        "id": row.id,
        "task": row.task,
        "texts": list(row.texts),
        "messages": row.messages,
        "pictures": pictures,
        "source": row.source,
    }


def _shards_of(folder: Path, shards: Sequence[Shard], source: str) -> list[Shard]:
    own = [shard for shard in shards if shard.source == source]
    if not own:
        known = sorted({shard.source for shard in shards})
        raise ValueError(f"{folder} has no source {source!r}; expected one of {', '.join(known)}")
    return own


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {path.parent}; make its codes with train.extract_codes, or name "
            "the output folder of an extraction"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"no {MANIFEST_FILE} in {path.parent}: the extraction has not finished; start the same "
            "command again, it goes on"
        )
    manifest = read_json(path)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{path} describes no code shards; make them with train.extract_codes")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {manifest.get('format_version')}, this program reads "
            f"version {FORMAT_VERSION}; extract again or use a matching release"
        )
    return manifest


def _parse_manifest(path: Path, manifest: dict[str, Any]) -> tuple[CodeOrigin, list[Shard]]:
    try:
        origin = CodeOrigin(
            manifest["tokenizer_fingerprint"],
            int(manifest["num_codebooks"]),
            int(manifest["codebook_size"]),
        )
        shards = [
            Shard(each["file"], each["source"], each["rows_per_task"], each["sha256"])
            for each in manifest["shards"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); extract again") from error
    return origin, shards


@lru_cache(maxsize=MAX_OPEN_SHARDS)
def _open_shard(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, memory_map=True)


@lru_cache(maxsize=MAX_CACHED_GROUPS)
def _read_group(path: Path, group: int) -> pa.Table:
    return _open_shard(path).read_row_group(group, use_threads=False).combine_chunks()


def _loaded(table: pa.Table, place: int, num_codebooks: int) -> CodeRow:
    row = table.drop_columns(["pictures"]).slice(place, 1).to_pylist()[0]
    stored = table["pictures"][place].values
    pictures = tuple(
        PictureCodes(
            torch.from_numpy(codes.values.to_numpy().astype(np.int64)).reshape(-1, num_codebooks),
            tuple(grid.as_py()),
        )
        for codes, grid in zip(stored.field("codes"), stored.field("grid"), strict=True)
    )
    return CodeRow(
        id=row["id"],
        task=row["task"],
        texts=tuple(row["texts"]),
        messages=row["messages"],
        pictures=pictures,
        source=row["source"],
    )
