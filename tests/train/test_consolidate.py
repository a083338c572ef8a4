"""A checkpoint becomes a model folder at any time."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mllm.pipeline import Pipeline
from tests.train.runs import weights
from tests.train.test_adapters import LORA
from tests.train.test_mllm import build_config
from train.consolidate import consolidate
from train.mllm import run_stage


@pytest.mark.parametrize("changes", [{}, LORA], ids=["whole", "adapters"])
def test_the_last_checkpoint_is_the_result_of_the_run(
    changes: dict, materials: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_stage(build_config(materials, run, **changes))
    consolidate(run, tmp_path / "out")
    expected, got = weights(run), load_file(tmp_path / "out" / "model.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=1e-7, msg=name)
    assert Pipeline.from_pretrained(tmp_path / "out", device="cpu")
    consolidate(run, tmp_path / "earlier", step=4)
    earlier = load_file(tmp_path / "earlier" / "model.safetensors")
    assert any(not torch.equal(earlier[name], value) for name, value in expected.items())
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        consolidate(run, tmp_path / "none", step=5)
    with pytest.raises(ValueError, match="is not empty; pass --force to overwrite it"):
        consolidate(run, tmp_path / "out")
    consolidate(run, tmp_path / "earlier", force=True)
    replaced = load_file(tmp_path / "earlier" / "model.safetensors")
    assert all(torch.equal(replaced[name], value) for name, value in got.items())
