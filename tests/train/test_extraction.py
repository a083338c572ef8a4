"""Several processes, and processes that are killed, give exactly the shards of one undisturbed."""

import multiprocessing
import os
import random
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from tests.train import tiny_sources as tiny
from train.code_shards import CodeShards
from train.extract_codes import app


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_three_processes_give_the_shards_of_one(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tiny.write_all_kinds(tmp_path / "raw")
    config = tiny.write_config(tmp_path, sources, tokenizer=tokenizer)
    tiny.run(config)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in (2, 0, 1):
        monkeypatch.setenv("RANK", str(rank))
        said = tiny.run(config, f"output={tmp_path / 'three'}")
        assert ("is complete" in said) == (rank == 1)
        assert ("this process is done; others have" in said) == (rank != 1)
    assert tiny.contents(tmp_path / "three") == tiny.contents(tmp_path / "out")


def extract_quietly(config: Path, output: Path, share: tuple[int, int]) -> None:
    """What a process that may be killed runs."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(share[0]), "WORLD_SIZE": str(share[1])}
    app([str(config), f"output={output}"], standalone_mode=False)


def start(config: Path, output: Path, *, count: int) -> list[BaseProcess]:
    """`count` processes; the modules they need are imported once, in the server they fork from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train.extract_codes", "tests.train.tiny_sources"])
    processes: list[BaseProcess] = [
        context.Process(target=extract_quietly, args=(config, output, (index, count)))
        for index in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def kill_after(processes: Sequence[BaseProcess], records: Path, num_records: int) -> None:
    """Kill all once so many records are there, and a random moment later."""
    while len(list(records.glob("*.json"))) < num_records:
        if not any(process.is_alive() for process in processes):
            break
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.03))
    for process in processes:
        process.kill()
        process.join()


def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(
    tokenizer: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    sources = [tiny.write_llava(raw, 40, suffix=".jsonl"), tiny.write_tars(raw, per_tar=10)]
    (raw / "images" / "7.png").unlink()
    config = tiny.write_config(tmp_path, sources, tokenizer=tokenizer, rows_per_shard=2)
    tiny.run(config)
    expected = tiny.contents(tmp_path / "out")

    output = tmp_path / "killed"
    records = output / "records"
    records.mkdir(parents=True)
    left = []
    for count, num_records in ((1, 1), (2, 6), (1, 11), (3, 16), (1, 22)):
        kill_after(start(config, output, count=count), records, num_records)
        left.append(len(list(records.glob("*.json"))))
        assert not (output / "manifest.json").exists()
    assert left == sorted(left)
    assert 0 < left[0] < left[-1] < 30
    for process in start(config, output, count=2):
        process.join()
        assert process.exitcode == 0
    assert tiny.contents(output) == expected
    rows = CodeShards(output)
    ids = [rows.row(index).id for index in range(len(rows))]
    assert len(ids) == len(set(ids)) == 59
