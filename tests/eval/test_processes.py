"""Work spread over processes: all of it is done once, and errors come through."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from eval.processes import CountDone, own_items, own_share, run_task, run_with_bar
from mllm.share import Share, process_device


@dataclass(frozen=True)
class Writing:
    """Writes a file for each number; fails or dies at some."""

    folder: Path
    error_at: int = -1
    death_at: int = -1

    def run(self, share: Share, count_done: CountDone) -> None:
        for number in own_items(range(6), share):
            if number == self.error_at:
                raise ValueError(f"number {number} is bad")
            if number == self.death_at:
                os._exit(9)
            (self.folder / str(number)).write_text(str(os.getpid()))
            count_done(1)


def test_each_process_does_every_nth_item() -> None:
    shares = [own_items(range(7), Share(index, 3)) for index in range(3)]
    assert [list(share) for share in shares] == [[0, 3, 6], [1, 4], [2, 5]]


def test_one_process_is_this_one(tmp_path: Path) -> None:
    counts: list[int] = []
    run_task(Writing(tmp_path), num_processes=1, count_done=counts.append)
    assert counts == [1] * 6
    assert {path.read_text() for path in tmp_path.iterdir()} == {str(os.getpid())}


def test_two_processes_do_all_items_once(tmp_path: Path) -> None:
    counts: list[int] = []
    run_task(Writing(tmp_path), num_processes=2, count_done=counts.append)
    assert sum(counts) == 6
    writers = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(writers) == 6
    assert len(set(writers.values())) == 2
    assert str(os.getpid()) not in writers.values()


def test_an_error_in_a_process_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="number 3 is bad"):
        run_task(Writing(tmp_path, error_at=3), num_processes=2, count_done=lambda number: None)


def test_a_process_that_dies_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="process 1 of 2 ended with code 9; start again"):
        run_task(Writing(tmp_path, death_at=3), num_processes=2, count_done=lambda number: None)


@dataclass(frozen=True)
class Interrupted:
    """Is stopped by Ctrl-C."""

    def run(self, share: Share, count_done: CountDone) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_with_bar(Interrupted(), "counting", num_done=0, num_items=6, num_processes=1)
    assert capsys.readouterr().err == "stopped; start again with the same command to go on\n"


def test_no_process_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_processes must be at least 1, got 0"):
        run_task(Writing(tmp_path), num_processes=0, count_done=lambda number: None)


def test_one_of_several_processes_does_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    counts: list[int] = []
    run_task(Writing(tmp_path), num_processes=1, count_done=counts.append, share=own_share(1))
    assert {path.name for path in tmp_path.iterdir()} == {"1", "4"}
    with pytest.raises(ValueError, match="one of 3 processes already; leave --num-processes out"):
        own_share(2)


@dataclass(frozen=True)
class Looking:
    """Writes down what each process computes with."""

    folder: Path

    def run(self, share: Share, count_done: CountDone) -> None:
        words = (process_device("cpu"), os.environ["LOCAL_RANK"], torch.get_num_threads())
        (self.folder / str(share.index)).write_text(" ".join(map(str, words)))


def test_processes_share_gpus_and_cores(tmp_path: Path) -> None:
    run_task(Looking(tmp_path), num_processes=2, count_done=lambda number: None)
    num_threads = min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) // 2))
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == [
        f"cpu 0 {num_threads}",
        f"cpu 1 {num_threads}",
    ]
