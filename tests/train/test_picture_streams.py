"""Shards of pictures with captions: who reads which, in what order, and from where again."""

import json
import logging
import shutil
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.train.tiny_pictures import (
    EVERY_CHANCE,
    assert_same,
    build_data,
    numbers,
    sample_files,
    take,
    write_shards,
)
from tests.train.tiny_sources import png, write_tar
from train.tokenizer_data import TokenizerData

SIZES = (5, 3, 7, 4, 2, 6)  # of the shards: 27 samples


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, Any]:
    return write_shards(tmp_path / "shards", SIZES)


def resume(data: TokenizerData, **settings: Any) -> TokenizerData:
    """A new process that goes on where `data` stands."""
    resumed = build_data(**settings)
    resumed.load_state_dict(json.loads(json.dumps(data.state_dict())))
    return resumed


@pytest.mark.parametrize("shuffle", [0, 4, 1000])
def test_finite_shards_give_each_sample_once_in_a_cycle(shards, shuffle):
    batches = take(build_data({**shards, "shuffle": shuffle}, batch_size=27), 3)
    assert all(sorted(numbers([batch])) == list(range(27)) for batch in batches)


def test_without_shuffling_samples_come_in_their_order(shards):
    batches = take(build_data({**shards, "shuffle": 0}, batch_size=9), 3)
    assert numbers(batches) == list(range(27))


def test_shuffling_mixes_samples_and_shards_anew_in_every_cycle(shards):
    found = numbers(take(build_data({**shards, "shuffle": 9}, batch_size=27), 2))
    first, second = found[:27], found[27:]
    assert first != sorted(first)
    assert first != second
    assert first != numbers(take(build_data({**shards, "shuffle": 9}, seed=1, batch_size=27), 1))


def test_processes_and_workers_read_different_shards(shards):
    found: list[int] = []
    for rank in (0, 1):
        data = build_data({**shards, "shuffle": 0}, rank=rank, world_size=2, num_workers=2)
        batches = take(data, 12)
        assert all(len(batch.pixels) == 2 for batch in batches)
        found += set(numbers(batches))
    # Each of the four workers has read its one or two shards to the end.
    assert sorted(found) == list(range(27))


def test_resampled_shards_are_drawn_with_replacement(shards):
    found = numbers(take(build_data({**shards, "resampled": True, "shuffle": 0}, batch_size=9), 9))
    counts = Counter(found)
    assert len(set(counts.values())) > 1
    assert len(counts) > 15


def test_resampled_shards_may_be_fewer_than_workers(tmp_path):
    source = write_shards(tmp_path / "one", (5,), resampled=True)
    assert len(take(build_data(source, num_workers=2), 3)) == 3


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("shuffle", [0, 4])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_resumed_stream_goes_on_exactly(shards, resampled, shuffle, num_workers):
    settings = {
        "source": {**shards, "resampled": resampled, "shuffle": shuffle},
        "crop": EVERY_CHANCE,
        "num_workers": num_workers,
        "batch_size": 6,
        "rank": 1,
        "world_size": 2,
    }
    expected = take(build_data(**settings), 9)
    data = build_data(**settings)
    found = take(data, 4)
    data = resume(data, **settings)
    found += take(data, 3, first=4)
    data = resume(data, **settings)
    found += take(data, 2, first=7)
    assert_same(found, expected)


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_stream_may_stop_anywhere_in_a_window(shards, stop):
    settings = {"source": {**shards, "shuffle": 4}, "batch_size": 2}
    expected = take(build_data(**settings), 10)
    data = build_data(**settings)
    take(data, stop)
    assert_same(take(resume(data, **settings), 10 - stop, first=stop), expected[stop:])


def test_step_0_begins_anew(shards):
    data = build_data(shards)
    first = take(data, 3)
    assert_same(take(data, 3), first)


def test_another_number_of_workers_cannot_go_on(shards):
    data = build_data(shards)
    take(data, 1)
    with pytest.raises(ValueError, match=r"the position in the tars was saved by .*'num_workers'"):
        resume(data, source=shards, num_workers=2)


def test_a_stream_does_not_go_on_without_its_state(shards):
    with pytest.raises(ValueError, match="stand before step 0, got step 3; load the state"):
        build_data(shards).batches(3)


def test_datacomps_files_are_read_and_others_left(tmp_path):
    files = {
        "a/0001.jpg": png(1), "a/0001.txt": b"caption 1", "a/0001.npz": b"?",
        "a/0002.webp": png(2), "a/0002.TXT": b" caption 2\n", "a/notes": b"?",
    }  # fmt: skip
    path = write_tar(tmp_path / "0.tar", files)
    source = {"kind": "webdataset", "urls": [str(path)], "shuffle": 0}
    assert numbers(take(build_data(source, batch_size=2), 1)) == [1, 2]


def test_captions_may_be_fields_of_the_json(tmp_path):
    files = {"1.png": png(1), "1.json": json.dumps({"long": "caption 7"}).encode()}
    path = write_tar(tmp_path / "0.tar", files)
    source = {"kind": "webdataset", "urls": str(path), "text": "long"}
    assert numbers(take(build_data(source, batch_size=2), 1)) == [7, 7]


def test_wildcards_and_several_patterns_name_local_shards(tmp_path, shards):
    folder = tmp_path / "shards"
    urls = [str(folder / "0000[0-2]*.tar"), str(folder / "{00003..00005}.tar")]
    source = {**shards, "shuffle": 0}
    expected = take(build_data(source), 7)
    assert_same(take(build_data({**source, "urls": urls}), 7), expected)


def test_commands_give_shards_too(tmp_path, shards):
    source = {**shards, "shuffle": 0}
    urls = f"pipe:cat {source['urls']}"
    assert_same(take(build_data({**source, "urls": urls}), 7), take(build_data(source), 7))


@pytest.mark.skipif(shutil.which("curl") is None, reason="URLs are read with curl")
def test_urls_give_shards_too(tmp_path, shards):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path / "shards"))
    source = {**shards, "shuffle": 0}
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls = f"http://127.0.0.1:{server.server_port}/{{00000..00005}}.tar"
        found = take(build_data({**source, "urls": urls}), 7)
        server.shutdown()
    assert_same(found, take(build_data(source), 7))


# ---- what is damaged -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"9.png": b"no picture", "9.txt": b"a"}, "no image can be read"),
        ({"9.png": png(9)}, "no text: no .txt under the name"),
        ({"9.png": png(9), "9.txt": b" "}, "no text in 'txt'"),
        ({"9.png": png(9), "9.txt": b"\xff"}, "'utf-8' codec can't decode"),
        ({"9.txt": b"a"}, "0 pictures under the name, expected one"),
    ],
)
def test_a_bad_sample_of_a_shard_is_skipped_and_named(tmp_path, caplog, files, reason):
    path = write_tar(tmp_path / "0.tar", {**sample_files(1), **files, **sample_files(2)})
    data = build_data({"kind": "webdataset", "urls": str(path), "shuffle": 0}, batch_size=2)
    with caplog.at_level(logging.WARNING):
        assert numbers(take(data, 2)) == [1, 2, 1, 2]
    assert data.num_skipped == 2
    assert f"skipped 9 in {path}: {reason}" in caplog.text


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 3 // 512 * 512
    if how == "cut off":
        content = content[:middle]
    elif how == "header":  # of the second sample's picture
        start = content.index(b"0001.png")
        content = content[:start] + bytes([255]) * 512 + content[start + 512 :]
    elif how == "no end":
        content = content.rstrip(b"\0")
        content += bytes(-len(content) % 512)
    else:
        content = b"no tar" * 1000
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut off", "header", "no end", "no tar"])
@pytest.mark.parametrize("command", ["", "pipe:cat "])
def test_a_damaged_shard_is_named_and_the_next_one_read(tmp_path, caplog, how, command):
    source = write_shards(tmp_path / "shards", (3, 2), shuffle=0)
    damage(tmp_path / "shards" / "00000.tar", how)
    source["urls"] = command + source["urls"]
    data = build_data(source, batch_size=2)
    with caplog.at_level(logging.WARNING):
        found = numbers(take(data, 4))
    assert {3, 4} <= set(found)
    assert data.num_skipped >= 1
    assert f"skipped {command}{tmp_path}/shards/00000.tar: the tar cannot be read" in caplog.text


def test_a_command_that_fails_is_named(tmp_path, caplog):
    source = write_shards(tmp_path / "shards", (3,), shuffle=0)
    source["urls"] = ["pipe:exit 3", source["urls"].replace("{00000..00000}", "00000")]
    data = build_data(source, batch_size=3)
    with caplog.at_level(logging.WARNING):
        take(data, 1)
    assert "skipped pipe:exit 3: the tar cannot be read, or not to its end" in caplog.text


def test_shards_without_samples_do_not_keep_a_run_waiting(tmp_path):
    path = write_tar(tmp_path / "0.tar", {})
    for num_workers in (0, 1):
        data = build_data({"kind": "webdataset", "urls": str(path)}, num_workers=num_workers)
        with pytest.raises(
            RuntimeError, match=r"^no data for step 0: 10 tars in a row gave no sample"
        ):
            take(data, 1)


def test_more_than_one_bad_sample_in_a_hundred_stops_a_stream(tmp_path):
    files = sample_files(1) | {"9.png": b"no picture", "9.txt": b"a"}
    path = write_tar(tmp_path / "0.tar", files)
    source = {"kind": "webdataset", "urls": str(path), "resampled": True}
    data = build_data(source, num_workers=2)
    with pytest.raises(RuntimeError, match=r"^1\d bad samples .* the last one is 9 in .*0.tar: no"):
        take(data, 40)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("urls", "error", "message"),
    [
        ("{folder}/x*.tar", FileNotFoundError, r"no file matches .*x\*.tar; check the path"),
        ("{folder}/{{4..7}}.tar", FileNotFoundError, r"4 of 4 tars are not there, such as .*4.tar"),
        ("s3://bucket/1.tar", ValueError, r"read from s3 URLs .*'pipe:aws s3 cp s3://bucket/1"),
    ],
)
def test_shards_that_cannot_be_there_are_refused(tmp_path, urls, error, message):
    with pytest.raises(error, match=message):
        build_data({"kind": "webdataset", "urls": urls.format(folder=tmp_path)})


def test_fewer_finite_shards_than_workers_are_refused(shards):
    message = (
        "data.source.urls names 6, expected at least 8 for 2 processes x 4 workers; set num_workers"
    )
    with pytest.raises(ValueError, match=message):
        build_data(shards, world_size=2, num_workers=4)


def test_no_urls_are_refused():
    with pytest.raises(ValidationError, match="at least 1 item"):
        build_data({"kind": "webdataset", "urls": []})
