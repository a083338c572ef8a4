"""--dry-run of a tokenizer training: settings, parameters, memory, the first batch's shapes."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import train.tokenizer
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
    ("changes", "bytes_each"),
    [(("ema_decay=null",), 16), (("ema_decay=0.9",), 20), (("ema_decay=null", "zero1=true"), 10)],
)
def test_memory_counts_gradients_moments_and_averages(
    changes: tuple[str, ...], bytes_each: int, tmp_path: Path
) -> None:
    config = smoke_config(tmp_path, *changes)
    with torch.device("meta"):
        model = UniTok(config.model)
    learning, total = count(model)
    needed = fixed_memory(config, model, learning=learning, total=total, processes=4)
    frozen = (total - learning) * (bytes_each - 4) - 4 * (total - learning) * ("ema" in changes[0])
    assert needed == pytest.approx(total * bytes_each, abs=16 * (total - learning) + abs(frozen))
