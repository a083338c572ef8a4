"""Code shards: what is written is read, damage and foreign codes are named."""

import json
import pickle
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch

from mllm.messages import Message
from train.code_shards import (
    MANIFEST_FILE,
    ROWS_PER_GROUP,
    CodeOrigin,
    CodeRow,
    CodeShards,
    PictureCodes,
    Shard,
    write_manifest,
    write_shard,
)

ORIGIN = CodeOrigin("0123456789abcdef", num_codebooks=8, codebook_size=65536)
GRIDS = ((2, 3), (1, 1), (4, 4))


def build_row(number: int) -> CodeRow:
    """A row of one of the four tasks, with zero to two pictures."""
    task = ("image_to_text", "text", "chat", "text_to_image")[number % 4]
    num_pictures = {"text": 0, "chat": 2}.get(task, 1)
    grids = [GRIDS[(number + place) % 3] for place in range(num_pictures)]
    pictures = tuple(
        PictureCodes(torch.randint(65536, (height * width, 8)), (height, width))
        for height, width in grids
    )
    parts: list[Message] = [
        {"type": "image", "text": ""},
        {"type": "text", "text": f"what? {number}"},
    ]
    answer: Message = {"role": "assistant", "content": [parts[0], {"type": "text", "text": "ünï"}]}
    question: Message = {"role": "user", "content": parts}
    messages: list[Message] | None = [question, answer] if task == "chat" else None
    texts = () if task == "chat" else (f"one {number}", "two\nlines")
    return CodeRow(f"id{number}", task, texts, messages, pictures, "source")


def write_folder(folder: Path, shards: list[list[CodeRow]]) -> Path:
    (folder / "shards").mkdir(parents=True)
    written = []
    for number, rows in enumerate(shards):
        file = f"shards/source-{number:06d}.parquet"
        digest = write_shard(folder / file, rows)
        tasks = [row.task for row in rows]
        written.append(Shard(file, "source", {task: tasks.count(task) for task in tasks}, digest))
    write_manifest(folder, ORIGIN, written, num_bad_samples=0)
    return folder


@pytest.fixture(scope="module")
def rows() -> list[CodeRow]:
    torch.manual_seed(0)
    return [build_row(number) for number in range(2 * ROWS_PER_GROUP + 10)]


@pytest.fixture
def folder(tmp_path: Path, rows: list[CodeRow]) -> Path:
    """Three shards, of which the last has several row groups."""
    return write_folder(tmp_path / "codes", [rows[:5], rows[5:6], rows[6:]])


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def assert_same(got: CodeRow, expected: CodeRow) -> None:
    for name in ("id", "task", "texts", "messages", "source"):
        assert getattr(got, name) == getattr(expected, name)
    for mine, theirs in zip(got.pictures, expected.pictures, strict=True):
        assert mine.grid == theirs.grid
        assert mine.codes.dtype == torch.int64
        assert torch.equal(mine.codes, theirs.codes)


def test_every_row_is_read_as_it_was_written(folder: Path, rows: list[CodeRow]) -> None:
    shards = CodeShards(folder, tokenizer_fingerprint=ORIGIN.tokenizer_fingerprint)
    assert len(shards) == len(rows)
    for index in torch.randperm(len(rows)).tolist():
        assert_same(shards.row(index), rows[index])


def test_rows_outside_the_folder_are_refused(folder: Path) -> None:
    shards = CodeShards(folder)
    for index in (-1, len(shards)):
        with pytest.raises(IndexError, match=f"row must be 0 to {len(shards) - 1}, got {index}"):
            shards.row(index)


def test_the_manifest_counts_rows_by_task_and_source(folder: Path, rows: list[CodeRow]) -> None:
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    tasks = [row.task for row in rows]
    assert manifest["num_rows"] == len(rows)
    assert manifest["rows_per_task"] == {task: tasks.count(task) for task in set(tasks)}
    assert manifest["rows_per_source"] == {"source": len(rows)}
    assert [shard["num_rows"] for shard in manifest["shards"]] == [5, 1, len(rows) - 6]


def test_the_same_rows_are_the_same_bytes(tmp_path: Path, rows: list[CodeRow]) -> None:
    digests = {write_shard(tmp_path / f"{number}.parquet", rows) for number in range(2)}
    assert len(digests) == 1


def test_shards_are_copied_into_workers_without_open_files(
    folder: Path, rows: list[CodeRow]
) -> None:
    shards = CodeShards(folder)
    shards.row(0)
    assert_same(pickle.loads(pickle.dumps(shards)).row(7), rows[7])


def test_the_datasets_library_reads_the_shards(
    folder: Path, rows: list[CodeRow], tmp_path: Path
) -> None:
    files = [str(path) for path in sorted((folder / "shards").iterdir())]
    table = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table["id"][:] == [row.id for row in rows]
    codes = table[2]["pictures"][1]["codes"]
    assert codes == rows[2].pictures[1].codes.flatten().tolist()


def test_a_picture_of_256_tokens_takes_less_than_4_kilobytes(tmp_path: Path) -> None:
    pictures = [PictureCodes(torch.randint(4096, (256, 8)), (16, 16)) for _ in range(256)]
    rows = [
        CodeRow(f"{number:09d}", "text_to_image", (f"a caption, {number}",), None, (picture,), "s")
        for number, picture in enumerate(pictures)
    ]
    path = tmp_path / "shard.parquet"
    write_shard(path, rows)
    assert path.stat().st_size / len(rows) < 3500  # measured: 3190


def test_codes_of_another_tokenizer_are_refused(folder: Path) -> None:
    message = (
        "were extracted with tokenizer 0123456789abcdef, the model has other; extract them again"
    )
    with pytest.raises(ValueError, match=message):
        CodeShards(folder, tokenizer_fingerprint="other")


def test_a_changed_shard_is_named_by_verify(folder: Path) -> None:
    shards = CodeShards(folder)
    shards.verify()
    path = folder / "shards" / "source-000002.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 3 shards .* shards/source-000002\.parquet; delete"):
        shards.verify()


def test_a_shard_that_cannot_be_read_is_named(folder: Path) -> None:
    path = folder / "shards" / "source-000000.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"source-000000\.parquet is damaged .* delete it and"):
        CodeShards(folder).row(0)


def test_a_shard_with_fewer_rows_than_the_manifest_says_is_named(
    folder: Path, rows: list[CodeRow]
) -> None:
    write_shard(folder / "shards" / "source-000000.parquet", rows[:2])
    with pytest.raises(ValueError, match=r"source-000000\.parquet is damaged"):
        CodeShards(folder).row(4)


def test_a_lost_shard_is_named(folder: Path) -> None:
    (folder / "shards" / "source-000001.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"has lost shards/source-000001\.parquet"):
        CodeShards(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "describes no code shards"),
        ({"format_version": 2}, "has format version 2, this program reads version 1"),
        ({"shards": [{"file": "a"}]}, r"manifest\.json is damaged \(KeyError\('source'\)\)"),
    ],
)
def test_a_wrong_manifest_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(ValueError, match=message):
        CodeShards(folder)


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the extraction has not finished; start the same"):
        CodeShards(tmp_path)


def test_a_folder_that_does_not_exist_is_not_called_unfinished(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*; make its codes with"):
        CodeShards(tmp_path / "codes")


def test_a_row_of_an_unknown_task_is_refused(tmp_path: Path) -> None:
    row = CodeRow("a", "song", (), None, (), "source")
    with pytest.raises(ValueError, match=r"must be one of image_to_text, .* got 'song'"):
        write_shard(tmp_path / "shard.parquet", [row])


def test_groups_of_rows_are_small_enough_to_be_read_one_by_one(folder: Path) -> None:
    file = pq.ParquetFile(folder / "shards" / "source-000002.parquet")
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert max(sizes) == ROWS_PER_GROUP
