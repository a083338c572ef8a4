"""Tables of raw rows: any range of any kind of file, damaged tars, indices that are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.train import tiny_sources as tiny
from train import source_files
from train.source_files import (
    KEY,
    BadRow,
    Chain,
    Lines,
    ParquetRows,
    TarSamples,
    open_table,
)


@pytest.mark.parametrize("cut", ["in_a_file", "at_a_header", "overwritten_header", "compressed"])
def test_a_damaged_tar_gives_what_can_be_read_and_one_bad_row(tmp_path: Path, cut: str) -> None:
    tiny.write_tars(tmp_path, num_tars=1)
    path = tmp_path / "00000.tar"
    content = path.read_bytes()
    third = content.index(b"0002.png")
    damaged = {
        "in_a_file": content[: third + 600],
        "at_a_header": content[:third],
        "overwritten_header": content[:third] + b"x" * 512 + content[third + 512 :],
        "compressed": b"\x1f\x8b" + content,
    }
    path.write_bytes(damaged[cut])
    table = TarSamples(path, tmp_path / "index.json")
    *rows, last = table.read(0, len(table))
    keys = [row[KEY] for row in rows if isinstance(row, dict)]
    assert keys == ([] if cut == "compressed" else ["0000", "0001"])
    assert isinstance(last, BadRow)
    assert last.name == "00000.tar"
    assert "the tar is damaged" in last.reason


def test_a_tar_is_walked_through_once_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.write_tar(tmp_path / "a.tar", {"a.txt": b"one"})
    walks = []
    walk = source_files._walk_tar

    def counted_walk(path: Path) -> Any:
        walks.append(path)
        return walk(path)

    monkeypatch.setattr(source_files, "_walk_tar", counted_walk)
    for _ in range(2):
        assert len(TarSamples(path, tmp_path / "index.json")) == 1
    assert len(walks) == 1
    tiny.write_tar(path, {"a.txt": b"one", "b.txt": b"two"})
    assert len(TarSamples(path, tmp_path / "index.json")) == 2
    assert len(walks) == 2


def test_arrow_files_are_tables(tmp_path: Path) -> None:
    tiny.write_saved_dataset(tmp_path)
    table = open_table(str(tmp_path / "saved" / "*.arrow"))
    assert len(table) == 4
    (row,) = table.read(1, 2)
    assert isinstance(row, dict)
    assert row["caption"] == "c 1"


def text_lines(folder: Path) -> Lines:
    path = folder / "lines.txt"
    path.write_text("".join(f"{number}\n" for number in range(23)))
    return Lines(path, is_json=False)


def parquet_rows(folder: Path) -> ParquetRows:
    rows = pa.table({"text": [str(number) for number in range(23)]})
    pq.write_table(rows, folder / "rows.parquet", row_group_size=5)
    return ParquetRows(folder / "rows.parquet")


def chained_lines(folder: Path) -> Chain:
    for number, (start, stop) in enumerate([(0, 5), (5, 5), (5, 6), (6, 23)]):
        lines = [f"{each}\n" for each in range(start, stop)]
        (folder / f"part{number}.txt").write_text("".join(lines))
    table = open_table(str(folder / "part*.txt"))
    assert isinstance(table, Chain)
    return table


@pytest.mark.parametrize("build", [text_lines, parquet_rows, chained_lines])
def test_any_range_of_a_table_is_that_part_of_its_rows(
    tmp_path: Path, build: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_files, "ROWS_AT_A_TIME", 3)
    table = build(tmp_path)
    assert len(table) == 23
    for start in range(24):
        for stop in range(start, 24):
            texts = [row["text"] for row in table.read(start, stop)]
            assert texts == [str(number) for number in range(start, stop)]
