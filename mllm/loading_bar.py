"""Transformers' bar "Loading weights": shown where one waits for it, not where it only flickers."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from transformers.utils import logging as transformers_logging

LONG_LOAD = 10**9  # bytes; less takes a disk a second or two


@contextmanager
def hide_short_bar(weights: Iterable[Path]) -> Iterator[None]:
    """No bar inside the block unless these files are large; afterwards as the user chose."""
    is_long = sum(path.stat().st_size for path in weights) >= LONG_LOAD
    if is_long or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    hub_had_none = are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # this and its opposite reach the hub's bars too
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
        if hub_had_none:
            disable_progress_bars()
