"""The command: rows of every kind of source, bad samples listed, mixed settings refused."""

import errno
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eval.demo_sheet import GAP, text_block
from tests.train import tiny_sources as tiny
from train import extraction, picture_encoder
from train.code_preview import PICTURE_SIZE, TILE_WIDTH, choose_rows, decoded, text_lines
from train.code_shards import CodeShards, PictureCodes, write_shard
from unitok.image import load_image, preprocess
from unitok.model import UniTok


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def all_kinds(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished folder with a source of every kind, and what the command said."""
    folder = tmp_path_factory.mktemp("all")
    path = tiny.write_config(folder, tiny.write_all_kinds(folder / "raw"), tokenizer=tokenizer)
    return folder, tiny.run(path, "--verify", "--preview", str(folder / "look.png"))


def test_every_kind_of_source_ends_in_the_shards(all_kinds: tuple[Path, str]) -> None:
    folder, output = all_kinds
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["rows_per_source"] == {
        "llava": 6,
        "tars": 6,
        "pairs": 12,
        "saved": 4,
        "official": 3,
        "text": 2,
    }
    assert manifest["rows_per_task"] == {
        "image_to_text": 10,
        "text_to_image": 14,
        "text": 2,
        "chat": 7,
    }
    assert (folder / "out" / "bad_samples.jsonl").read_text() == ""
    assert (folder / "out" / "config.yaml").is_file()
    assert "is complete: 33 rows" in output
    assert "all 9 shards are as they were written" in output


def test_rows_hold_the_codes_of_their_own_picture(
    all_kinds: tuple[Path, str], tokenizer: Path
) -> None:
    folder, _ = all_kinds
    model = UniTok.from_pretrained(tokenizer)
    shards = CodeShards(folder / "out", tokenizer_fingerprint=model.fingerprint)
    rows = [shards.row(index) for index in range(len(shards))]
    for source in ("llava", "tars", "saved"):
        for number, row in enumerate(row for row in rows if row.source == source):
            pixels = preprocess(load_image(tiny.png(number)), "chat", image_size=32)
            (picture,) = row.pictures
            assert torch.equal(picture.codes, model.encode(pixels)[0])
            assert picture.grid == (2, 2)


def test_a_pair_for_both_tasks_gives_two_rows_with_the_same_codes(
    all_kinds: tuple[Path, str],
) -> None:
    shards = CodeShards(all_kinds[0] / "out")
    rows = [shards.row(index) for index in range(len(shards))]
    first, second = [row for row in rows if row.source == "pairs"][:2]
    assert (first.id, first.task) == (second.id, "image_to_text")
    assert second.task == "text_to_image"
    assert torch.equal(first.pictures[0].codes, second.pictures[0].codes)


def test_the_preview_shows_rows_of_every_source(all_kinds: tuple[Path, str]) -> None:
    folder, _ = all_kinds
    with Image.open(folder / "look.png") as image:
        assert min(image.size) > 500
        assert image.text["tokenizer_fingerprint"]  # type: ignore[attr-defined]
    shards = CodeShards(folder / "out")
    rows = [shards.row(index) for index in choose_rows(shards)]
    sources = {"llava", "tars", "pairs", "saved", "official", "text"}
    assert {row.source for row in rows} == sources
    assert {row.task for row in rows if row.source == "pairs"} == {"image_to_text", "text_to_image"}


def contains(sheet: Image.Image, part: Image.Image) -> bool:
    """Whether a picture stands in another one, pixel by pixel."""
    red_green_blue = np.array([1 << 16, 1 << 8, 1])
    whole, wanted = (np.asarray(each.convert("RGB")) @ red_green_blue for each in (sheet, part))
    height, width = wanted.shape
    rarity = np.bincount(whole.flat, minlength=1 << 24)[wanted]
    y, x = np.unravel_index(rarity.argmin(), wanted.shape)  # a place that is not found everywhere
    rows, columns = whole.shape[0] - height + 1, whole.shape[1] - width + 1
    return any(
        np.array_equal(whole[top : top + height, left : left + width], wanted)
        for top, left in np.argwhere(whole[y : y + rows, x : x + columns] == wanted[y, x])
    )


def test_the_preview_shows_the_decoded_pictures_and_the_text_of_each_row(
    all_kinds: tuple[Path, str], tokenizer: Path
) -> None:
    folder, _ = all_kinds
    model = UniTok.from_pretrained(tokenizer)
    shards = CodeShards(folder / "out")
    rows = [shards.row(index) for index in choose_rows(shards)]
    with Image.open(folder / "look.png") as sheet:
        for row in rows:
            for picture in row.pictures:
                assert contains(sheet, decoded(picture, model)), row.id
            lines = text_lines(row)
            width = TILE_WIDTH - (PICTURE_SIZE + GAP if row.pictures else 0)
            assert contains(sheet, text_block(lines, width)), row.id
        assert not contains(sheet, decoded(flipped(rows[0].pictures[0]), model))
    said = {row.source: [text for text, _ in text_lines(row)] for row in rows}
    assert said["text"] == ["second document"]
    assert said["llava"][0].startswith("user: [picture] What is it?")
    assert said["llava"][1].startswith("assistant: It is ")


def flipped(picture: PictureCodes) -> PictureCodes:
    """A picture of the same codes in another order."""
    return PictureCodes(picture.codes.flip(0), picture.grid)


def test_images_per_second_and_the_time_left_are_said_within_a_shard(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(extraction, "SECONDS_BETWEEN_LINES", 0)
    config = tiny.write_config(
        tmp_path, [tiny.write_llava(tmp_path)], tokenizer=tokenizer, rows_per_shard=6
    )
    with caplog.at_level("INFO"):
        tiny.run(config)
    said = [record.message for record in caplog.records if "images/s" in record.message]
    place = r"shards/llava-000000\.parquet"
    pace = r"\d of 6 samples, \d+ images/s, \d+:\d\d:\d\d left"
    assert [bool(re.fullmatch(f"{place}: {pace}", line)) for line in said] == [True] * 6 + [False]
    assert re.fullmatch(f"{place} is done: 6 of 6 samples, .*, 0:00:00 left", said[-1])


def test_the_pace_is_that_of_all_samples_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(extraction.time, "monotonic", lambda: now)
    pace = extraction.Pace(1000)
    assert not pace.is_due()
    now += extraction.SECONDS_BETWEEN_LINES + 10
    for _ in range(100):
        pace.add(2)
    assert pace.is_due()
    assert pace.describe() == "100 of 1000 samples, 5 images/s, 0:06:00 left"
    assert not pace.is_due()


def test_a_finished_folder_is_left_as_it_is(all_kinds: tuple[Path, str]) -> None:
    folder, _ = all_kinds
    before = tiny.contents(folder / "out")
    changed = [file.stat().st_mtime_ns for file in (folder / "out" / "shards").iterdir()]
    tiny.run(folder / "extract.yaml", "batch_size=5")
    assert tiny.contents(folder / "out") == before
    assert changed == [file.stat().st_mtime_ns for file in (folder / "out" / "shards").iterdir()]


def test_an_existing_preview_is_kept(all_kinds: tuple[Path, str]) -> None:
    folder, _ = all_kinds
    message = tiny.refused(folder / "extract.yaml", "--preview", str(folder / "look.png"))
    assert "look.png exists already; pass --force" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rows_per_shard=5", "was begun with rows_per_shard 4, now 5; name another output folder"),
        ("recipe=zero_shot", "was begun with recipe chat, now zero_shot"),
        ("limit=3", "was begun with num_samples"),
        ("sources=[{kind: text, name: text, path: %s/raw/documents.txt}]", "with other sources"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    all_kinds: tuple[Path, str], override: str, message: str
) -> None:
    folder, _ = all_kinds
    override = override.replace("%s", str(folder))
    assert message in tiny.refused(folder / "extract.yaml", override)


def test_another_tokenizer_in_the_same_folder_is_refused(
    all_kinds: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = all_kinds
    model = UniTok.from_pretrained(tiny.save_tokenizer(tmp_path))
    with torch.no_grad():
        model.quantizer.codebooks_KVD.add_(torch.randn_like(model.quantizer.codebooks_KVD))
    model.save_pretrained(tmp_path / "other")
    message = tiny.refused(folder / "extract.yaml", f"tokenizer={tmp_path / 'other'}")
    assert "was begun with tokenizer_fingerprint" in message
    assert f"now {model.fingerprint}" in message


def test_bad_samples_are_listed_and_the_others_kept(tokenizer: Path, tmp_path: Path) -> None:
    images = tiny.write_pictures(tmp_path / "images", 3)
    (images / "broken.png").write_bytes(tiny.png(1)[:60])
    (images / "text.png").write_text("no picture")
    asked = ("<image>\nWhat?", "This.")
    rows = [
        tiny.question("good", "0.png", *asked),
        tiny.question("missing", "none.png", *asked),
        tiny.question("broken", "broken.png", *asked),
        tiny.question("no-picture", "text.png", *asked),
        tiny.question("second-missing", ["1.png", "none.png"], "<image><image>", "Two."),
        tiny.question("long-name", "x" * 5000, *asked),
        tiny.question("marks", "0.png", "What?", "This."),
        tiny.question("also-good", ["1.png", "2.png"], "<image><image>", "Two."),
    ]
    path = tiny.write_lines(tmp_path / "rows.jsonl", rows)
    source = {"kind": "llava", "name": "rows", "path": str(path), "images": str(images)}
    output = tiny.run(tiny.write_config(tmp_path, [source], tokenizer=tokenizer))
    shards = CodeShards(tmp_path / "out")
    assert [shards.row(index).id for index in range(len(shards))] == ["good", "also-good"]
    assert len(shards.row(1).pictures) == 2
    lines = (tmp_path / "out" / "bad_samples.jsonl").read_text().splitlines()
    bad = {entry["id"]: entry for entry in map(json.loads, lines)}
    assert {entry["source"] for entry in bad.values()} == {"rows"}
    reasons = {
        "missing": f"no image file at {images / 'none.png'}",
        "broken": "cannot read an image from",
        "no-picture": "no image can be read from",
        "second-missing": "no image file at",
        "long-name": "no file can have the name",
        "marks": "0 <image> marks for 1 pictures",
    }
    assert list(bad) == list(reasons)
    assert all(reason in bad[name]["reason"] for name, reason in reasons.items())
    assert "2 rows (2 chat); 6 bad samples, see" in output


def test_a_shard_without_any_good_sample_is_left_out(tokenizer: Path, tmp_path: Path) -> None:
    rows = [tiny.question(n, None if n < 4 else "a.png", "Hi?", "Hi.") for n in range(8)]
    path = tiny.write_lines(tmp_path / "rows.jsonl", rows)
    source = {"kind": "llava", "name": "rows", "path": str(path)}
    config = tiny.write_config(tmp_path, [source], tokenizer=tokenizer)
    for _ in range(2):
        tiny.run(config, "--verify")
        assert len(CodeShards(tmp_path / "out")) == 4
        assert len(list((tmp_path / "out" / "shards").iterdir())) == 1


def test_pictures_of_several_sizes_keep_their_grids(tokenizer: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    sizes = [(16, 16), (48, 16), (16, 16), (16, 32), (48, 16), (16, 16)]  # width, height
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (40 * number, 90, 20)).save(images / f"{number}.png")
    rows = [tiny.question(n, f"{n}.png", "<image>What?", "This.") for n in range(len(sizes))]
    path = tiny.write_lines(tmp_path / "rows.jsonl", rows)
    source = {"kind": "llava", "name": "rows", "path": str(path), "images": str(images)}
    tiny.run(tiny.write_config(tmp_path, [{**source, "recipe": "native"}], tokenizer=tokenizer))
    shards = CodeShards(tmp_path / "out")
    found = [shards.row(index) for index in range(len(shards))]
    assert [row.id for row in found] == [str(number) for number in range(len(sizes))]
    grids = [row.pictures[0].grid for row in found]
    assert grids == [(height // 16, width // 16) for width, height in sizes]


def test_a_limit_takes_the_first_samples_of_each_source(tokenizer: Path, tmp_path: Path) -> None:
    sources = [tiny.write_tars(tmp_path), tiny.write_text(tmp_path)]
    tiny.run(tiny.write_config(tmp_path, sources, tokenizer=tokenizer), "limit=1")
    shards = CodeShards(tmp_path / "out")
    assert [shards.row(index).id for index in range(len(shards))] == ["0000", "000000000"]
    assert len(list((tmp_path / "out" / "index" / "tars").iterdir())) == 1  # of two tars


def test_a_lost_or_shortened_shard_is_made_again(tokenizer: Path, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path, [tiny.write_llava(tmp_path)], tokenizer=tokenizer)
    tiny.run(config)
    before = tiny.contents(tmp_path / "out")
    first, second = sorted((tmp_path / "out" / "shards").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    tiny.run(config)
    assert tiny.contents(tmp_path / "out") == before


def test_a_disk_error_stops_the_run_and_loses_no_sample(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.write_config(tmp_path, [tiny.write_llava(tmp_path)], tokenizer=tokenizer)

    def fail(picture: Path) -> Image.Image:
        raise OSError(errno.EIO, "Input/output error", str(picture))

    with monkeypatch.context() as patch:
        patch.setattr(picture_encoder, "load_image", fail)
        assert "Input/output error" in tiny.refused(config)
    assert "is complete: 6 rows (6 chat)" in tiny.run(config)


def test_a_signal_ends_the_run_between_two_shards(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.write_config(tmp_path, [tiny.write_llava(tmp_path)], tokenizer=tokenizer)

    def write_and_interrupt(*arguments: Any) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return write_shard(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "write_shard", write_and_interrupt)
        assert "stopped between two shards; the same command goes on" in tiny.run(config)
    assert len(list((tmp_path / "out" / "records").iterdir())) == 1
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert "is complete: 6 rows" in tiny.run(config)
