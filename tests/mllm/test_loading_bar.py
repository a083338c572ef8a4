"""The bar of a loading model: only where one waits for it, and as the user chose elsewhere."""

import pytest
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging as transformers_logging

from mllm import loading_bar
from mllm.loading_bar import hide_short_bar
from mllm.pipeline import Pipeline
from tests.mllm.tiny_pipeline import build_tiny_pipeline


@pytest.fixture(autouse=True)
def bars():
    """Bars as after an import, and afterwards as they were."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()
    yield
    if not was_enabled:
        transformers_logging.disable_progress_bar()


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"small")
    return [path]


def test_a_small_model_loads_without_a_bar(tmp_path, capfd):
    build_tiny_pipeline().save_pretrained(tmp_path)
    capfd.readouterr()
    Pipeline.from_pretrained(tmp_path)
    assert "Loading weights" not in capfd.readouterr().err


def test_a_large_model_loads_with_one(tmp_path, capfd, monkeypatch):
    build_tiny_pipeline().save_pretrained(tmp_path)
    capfd.readouterr()
    monkeypatch.setattr(loading_bar, "LONG_LOAD", 1)
    Pipeline.from_pretrained(tmp_path)
    assert "Loading weights" in capfd.readouterr().err


def test_bars_are_back_after_the_block_even_after_an_error(weights):
    def fail():
        assert not transformers_logging.is_progress_bar_enabled()
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), hide_short_bar(weights):
        fail()
    assert transformers_logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()


def test_bars_that_the_user_turned_off_stay_off(weights):
    transformers_logging.disable_progress_bar()
    with hide_short_bar(weights):
        pass
    assert not transformers_logging.is_progress_bar_enabled()


def test_the_hub_s_bars_alone_stay_off_too(weights):
    disable_progress_bars()
    try:
        with hide_short_bar(weights):
            pass
        assert are_progress_bars_disabled()
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        enable_progress_bars()
