"""Batches of a tokenizer training: the same samples for any number of processes and workers."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
import yaml
from torch.utils.data._utils.pin_memory import pin_memory

from tests.train.runs import ROOT
from tests.train.tiny_pictures import (
    EVERY_CHANCE,
    NANO,
    SCENES,
    assert_same,
    build_data,
    join,
    numbers,
    take,
    write_folder,
)
from tests.train.tiny_sources import write_lines, write_parquet, write_saved_dataset
from tests.train.tokenizer_runs import smoke_config
from train.picture_config import CropConfig, TokenizerDataConfig
from train.picture_sources import StreamPosition
from train.scene_data import TokenizerBatches
from train.sources import BadSample
from train.tokenizer import open_data
from train.tokenizer_data import _Step


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Any]:
    return write_folder(tmp_path / "pictures")


def test_a_batch_has_pixels_ids_and_seeds(folder):
    (batch,) = take(build_data(folder), 1)
    assert batch.pixels.shape == (4, 3, 64, 64)
    assert batch.pixels.dtype == torch.float32
    assert -1 <= batch.pixels.min() < 0 < batch.pixels.max() <= 1
    assert batch.text_ids.shape == (4, 48)
    assert batch.text_ids.dtype == batch.seeds.dtype == torch.int64
    assert len(set(batch.seeds.tolist())) == 4


def test_a_batch_moves_as_a_whole():
    (batch,) = take(build_data(SCENES), 1)
    moved = batch.to("meta")
    assert {moved.pixels.device.type, moved.text_ids.device.type, moved.seeds.device.type} == {
        "meta"
    }


def test_a_step_for_a_gpu_is_pinned_as_a_whole(monkeypatch):
    """As torch's loader does it; where there is no GPU, it cannot be asked to."""
    pinned: list[torch.Size] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.shape)
        return tensor

    (batch,) = take(build_data(SCENES), 1)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    step = pin_memory(_Step(batch, [BadSample("a", "broken")], StreamPosition(1, 2, 3)))
    assert pinned == [batch.pixels.shape, batch.text_ids.shape, batch.seeds.shape]
    assert_same([step.batch], [batch])
    assert step[1:] == ([BadSample("a", "broken")], StreamPosition(1, 2, 3), "")


@pytest.mark.parametrize(("device", "is_pinned"), [("cuda:1", True), ("cpu", False)])
def test_only_batches_that_go_to_a_gpu_are_pinned(device, is_pinned, tmp_path):
    process = SimpleNamespace(num_processes=2, process_index=1, device=torch.device(device))
    assert open_data(smoke_config(tmp_path), process).pin_memory is is_pinned


@pytest.mark.gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_for_a_gpu_gives_the_same_batches_pinned(folder, num_workers):
    found = take(build_data(folder, num_workers=num_workers, pin_memory=True), 2)
    assert all(batch.pixels.is_pinned() and batch.seeds.is_pinned() for batch in found)
    assert_same(found, take(build_data(folder), 2))


@pytest.fixture(params=["scenes", "folder", "parquet", "saved"])
def source(request, tmp_path, monkeypatch) -> dict[str, Any]:
    """Every kind of source of which any sample can be had at once."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    if request.param == "scenes":
        return SCENES
    if request.param == "folder":
        return write_folder(tmp_path / "pictures")
    if request.param == "parquet":
        return as_table(write_parquet(tmp_path))
    return as_table(write_saved_dataset(tmp_path))


def as_table(values: dict[str, Any]) -> dict[str, Any]:
    """A source of code extraction as one of a tokenizer training."""
    named = {key: values[key] for key in ("path", "image", "text", "images") if key in values}
    return {"kind": "datasets", **named}


def test_two_processes_together_see_what_one_sees(source):
    whole = take(build_data(source, crop=EVERY_CHANCE), 4)
    halves = [
        take(build_data(source, crop=EVERY_CHANCE, rank=rank, world_size=2), 4) for rank in (0, 1)
    ]
    assert_same([join(list(pair)) for pair in zip(*halves, strict=True)], whole)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(folder, num_workers):
    settings = {"crop": EVERY_CHANCE}
    found = take(build_data(folder, num_workers=num_workers, **settings), 3)
    assert_same(found, take(build_data(folder, **settings), 3))


def test_two_processes_skip_bad_samples_as_one_does(folder):
    (folder["path"] / "2.png").write_bytes(b"no picture")
    whole = build_data(folder, crop=EVERY_CHANCE)
    halves = [build_data(folder, crop=EVERY_CHANCE, rank=rank, world_size=2) for rank in (0, 1)]
    expected = take(whole, 6)
    found = [join(list(pair)) for pair in zip(*(take(half, 6) for half in halves), strict=True)]
    assert_same(found, expected)
    assert sum(half.num_skipped for half in halves) == whole.num_skipped >= 4


def test_a_resumed_run_goes_on_with_the_same_batches(source):
    whole = take(build_data(source, crop=EVERY_CHANCE), 5)
    assert_same(take(build_data(source, crop=EVERY_CHANCE), 2, first=3), whole[3:])


def test_another_seed_gives_another_order_and_other_seeds(folder):
    (first,), (second,) = (take(build_data(folder, seed=seed, batch_size=6), 1) for seed in (0, 1))
    assert not torch.equal(first.text_ids, second.text_ids)
    assert not set(first.seeds.tolist()) & set(second.seeds.tolist())


def test_every_picture_comes_once_before_any_comes_again(folder):
    batches = take(build_data(folder, batch_size=6), 3)
    rounds = [{tuple(row) for row in batch.text_ids.tolist()} for batch in batches]
    assert len(rounds[0]) == 6
    assert rounds[0] == rounds[1] == rounds[2]


def test_uncropped_scenes_are_those_of_the_nano_recipe():
    batches = take(build_data(SCENES, crop={"kind": "centre"}), 2)
    nano = TokenizerBatches(
        4,
        image_size=NANO.image_size,
        vocab_size=NANO.text_vocab_size,
        context_length=NANO.text_context_length,
    )
    for step, batch in enumerate(batches):
        assert torch.equal(batch.pixels, nano[step][0])
        assert torch.equal(batch.text_ids, nano[step][1])


def test_a_tables_rows_come_with_their_own_captions(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = build_data(write_folder(tmp_path / "pictures"), crop={"kind": "centre"}, batch_size=6)
    (listed,) = take(folder, 1)
    expected = dict(zip(numbers([listed]), listed.pixels, strict=True))
    source = as_table(write_parquet(tmp_path))
    (batch,) = take(build_data(source, crop={"kind": "centre"}, batch_size=6), 1)
    found = dict(zip(numbers([batch]), batch.pixels, strict=True))
    assert sorted(found) == list(range(6))
    assert all(torch.equal(found[number], expected[number]) for number in found)


def test_a_table_may_name_files_of_pictures(tmp_path):
    folder = write_folder(tmp_path / "pictures")
    rows = [{"file": f"{number}.png", "caption": f"caption {number}"} for number in range(6)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    columns = {"image": "file", "text": "caption", "images": folder["path"]}
    data = build_data({"kind": "datasets", "path": str(path), **columns})
    assert_same(take(data, 3), take(build_data(folder), 3))


def test_a_bad_row_of_a_table_is_skipped_and_named(tmp_path, caplog):
    write_folder(tmp_path)
    rows = [{"image": "0.png", "text": "caption 0"}, {"image": "0.png", "text": ""}]
    path = write_lines(tmp_path / "rows.jsonl", [*rows, {"image": "gone.png", "text": "a"}, 7])
    data = build_data({"kind": "datasets", "path": str(path), "images": tmp_path})
    with caplog.at_level(logging.WARNING):
        batches = take(data, 1)
    assert set(numbers(batches)) == {0}
    assert "skipped row 1: no text in 'text'" in caplog.text
    assert "skipped row 2: no image file at" in caplog.text
    assert "skipped row 3: a JSON object was expected" in caplog.text


def test_captions_may_be_in_one_file(folder):
    path = folder["path"]
    for text in path.glob("*.txt"):
        text.unlink()
    rows = [{"image": f"{number}.png", "text": [f"caption {number}"]} for number in range(6)]
    expected = take(build_data(write_folder(path.parent / "other")), 2)
    write_lines(path / "captions.jsonl", rows)
    assert_same(take(build_data(folder), 2), expected)


def test_one_of_several_captions_is_chosen_by_the_samples_seed(folder):
    rows = [{"image": f"{number}.png", "text": ["a", "b"]} for number in range(6)]
    write_lines(folder["path"] / "captions.jsonl", rows)
    batches = take(build_data(folder), 6)
    ids = {tuple(row) for batch in batches for row in batch.text_ids.tolist()}
    assert len(ids) == 2


def test_captions_may_stand_on_lines_of_their_own(folder):
    rows = [{"image": f"{number}.png", "text": text} for number in range(6) for text in "ab"]
    write_lines(folder["path"] / "captions.jsonl", rows)
    batches = take(build_data(folder), 6)
    assert len({tuple(row) for batch in batches for row in batch.text_ids.tolist()}) == 2


def test_captions_of_pictures_that_are_not_there_are_named(folder):
    rows = [{"image": f"{number}.png", "text": "a"} for number in range(7)]
    write_lines(folder["path"] / "captions.jsonl", rows)
    with pytest.raises(ValueError, match=r"names 1 pictures that are not in .*, such as 6\.png"):
        build_data(folder)


def test_each_seed_has_scenes_of_its_own():
    first, other = (take(build_data({"kind": "scenes"}, seed=seed), 1)[0] for seed in (0, 1))
    assert not torch.equal(first.pixels, other.pixels)


def test_a_bad_sample_is_skipped_counted_and_named(folder, caplog):
    (folder["path"] / "2.png").write_bytes(b"no picture")
    data = build_data(folder, batch_size=6)
    with caplog.at_level(logging.WARNING):
        batches = take(data, 2)
    assert all(len(batch.pixels) == 6 for batch in batches)
    assert data.num_skipped >= 2
    assert "skipped 2.png: no image can be read" in caplog.text
    state = json.loads(json.dumps(data.state_dict()))
    resumed = build_data(folder, batch_size=6)
    resumed.load_state_dict(state)
    assert resumed.num_skipped == data.num_skipped


def test_more_than_one_bad_sample_in_a_hundred_stops_the_run(folder):
    (folder["path"] / "2.png").write_bytes(b"no picture")
    with pytest.raises(RuntimeError, match=r"11 bad samples beside \d+ good ones.* 2.png: no im"):
        take(build_data(folder, batch_size=6), 20)


def test_a_source_of_bad_samples_alone_stops_the_run_at_once(folder):
    for path in folder["path"].glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"11 bad samples .* repair the source"):
        take(build_data(folder), 1)


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(ValueError, match="a batch of 4 samples cannot be shared by 3 processes"):
        build_data(SCENES, world_size=3)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder of pictures at .*nowhere"):
        build_data({"kind": "folder", "path": tmp_path / "nowhere"})


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no picture in .*; expected files that end in jpg"
    ):
        build_data({"kind": "folder", "path": tmp_path})


def test_an_unknown_column_is_named(tmp_path):
    source = as_table(write_saved_dataset(tmp_path)) | {"text": "words"}
    message = "saved has no column 'words', only picture, caption; name the right ones"
    with pytest.raises(ValueError, match=message):
        build_data(source)


def test_an_empty_table_is_refused(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [])
    with pytest.raises(ValueError, match=r"rows.jsonl has no rows; name a table with pictures"):
        build_data({"kind": "datasets", "path": str(path)})


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches .*gone.parquet"):
        build_data({"kind": "datasets", "path": str(tmp_path / "gone.parquet")})


@pytest.mark.parametrize("listed", [False, True])
def test_pictures_without_captions_are_counted_and_named(folder, listed):
    if listed:
        rows = [{"image": f"{number}.png", "text": "a"} for number in (0, 1, 2)]
        write_lines(folder["path"] / "captions.jsonl", rows)
    else:
        for number in (3, 4, 5):
            (folder["path"] / f"{number}.txt").unlink()
    message = r"3 of 6 pictures in .* have no caption, such as 3.png; write it into 3.txt or list"
    with pytest.raises(ValueError, match=message):
        build_data(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": 3, "text": "a"}, "line 1: image must be the name of a picture, got 3"),
        ({"image": "0.png", "text": " "}, "line 1: text must be a caption or a list of them"),
        ({"image": "0.png", "text": []}, "line 1: text must be a caption or a list of them"),
        ([1], "line 1: expected one JSON object, got list"),
    ],
)
def test_a_wrong_line_of_captions_is_named(folder, row, message):
    write_lines(folder["path"] / "captions.jsonl", [row])
    with pytest.raises(ValueError, match=message):
        build_data(folder)


def test_the_documented_settings_are_accepted():
    text = (ROOT / "docs" / "tokenizer_data.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block.split("```")[0]) for block in text.split("```yaml\n")[1:]]
    configs = [TokenizerDataConfig.model_validate({"source": SCENES, **block}) for block in blocks]
    kinds = [config.source.kind for config in configs[:-1]]
    assert kinds == ["webdataset", "datasets", "folder", "scenes"]
    shown = configs[-1].crop
    assert shown.ratio == pytest.approx(CropConfig().ratio, abs=1e-4)
    assert shown.model_copy(update={"ratio": CropConfig().ratio}) == CropConfig()
