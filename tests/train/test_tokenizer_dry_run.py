"""--dry-run of a tokenizer training: settings, parameters, memory, the first batch's shapes."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import train.tokenizer
from tests.train.tiny_pictures import write_shards
from tests.train.tokenizer_runs import SMOKE, smoke_config
from train.tokenizer_dry_run import count, fixed_memory
from unitok.model import UniTok


def test_a_dry_run_says_everything_and_writes_nothing(tmp_path: Path) -> None:
    command = [str(SMOKE), f"output={tmp_path / 'run'}", "--dry-run", "--processes", "2"]
    result = CliRunner().invoke(train.tokenizer.app, command)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "  drop_path: 0.1" in lines
    learns = {line.split()[0]: line.split()[1:4] for line in lines if line.endswith("learn")}
    assert learns["logit_scale"] == ["1", "of", "1"]
    assert learns["lpips"][0] == "0"
    assert int(learns["discriminator"][0].replace(",", "")) > 0
    model = UniTok(smoke_config(tmp_path).model)
    parts = ("encoder", "quant_proj", "quantizer", "post_quant_proj", "decoder", "text_encoder")
    counted = sum(
        int(learns[name][2].replace(",", ""))
        for name in (*parts, "fc_norm", "projection", "logit_scale")
    )
    assert counted == count(model)[1]
    expected = "200 steps of 8 pictures: 2 processes x 1 parts x 4, of which 1 in 2 is decoded"
    assert expected in lines
    assert "first batch: pixels     (4, 3, 64, 64)" in lines
    assert any(line.startswith("memory per device before activations: ") for line in lines)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "learning_bytes", "all_bytes"),
    [
        (("ema_decay=null",), 4 + 4 + 8, 0),  # weight, gradient, two moments
        (("ema_decay=0.9",), 4 + 4 + 8, 4),  # and the average
        (("ema_decay=null", "zero1=true"), 4 + 4 + 8 / 4, 0),  # moments of a fourth
    ],
)
def test_memory_counts_gradients_moments_and_averages(
    changes: tuple[str, ...], learning_bytes: float, all_bytes: int, tmp_path: Path
) -> None:
    config = smoke_config(tmp_path, *changes)
    with torch.device("meta"):
        model = UniTok(config.model)
    learning, total = count(model)
    needed = fixed_memory(config, model, learning=learning, total=total, processes=4)
    assert needed == learning_bytes * learning + 4 * (total - learning) + all_bytes * total


def test_a_dry_run_says_where_there_are_fewer_tars_than_workers(tmp_path: Path) -> None:
    source = write_shards(tmp_path / "shards", (8, 8, 8))
    changes = [f"data.source={{kind: webdataset, urls: '{source['urls']}'}}", "num_workers=2"]
    command = [str(SMOKE), f"output={tmp_path / 'run'}", *changes, "--dry-run"]
    result = CliRunner().invoke(train.tokenizer.app, command)
    assert result.exit_code == 0, result.output
    assert "first batch: pixels     (8, 3, 64, 64)" in result.output
    result = CliRunner().invoke(train.tokenizer.app, [*command, "--processes", "2"])
    assert result.exit_code == 1
    assert "names 3, expected at least 4 for 2 processes x 2 workers" in result.output


def test_a_dry_run_refuses_what_the_run_would_refuse(tmp_path: Path) -> None:
    command = [str(SMOKE), f"output={tmp_path / 'run'}", "--dry-run", "--processes", "8"]
    result = CliRunner().invoke(train.tokenizer.app, command)
    assert result.exit_code == 1
    assert "batch.size 8 over 8 processes" in result.output
