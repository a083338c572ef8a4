"""Settings that every test shares: one torch thread per worker, fixed seeds, no network."""

import os

# Before any Hugging Face library is imported: a test that would download fails at once instead.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import random

import numpy as np
import pytest
import torch

# Workers run side by side, one per core; more threads than cores only slow each other down.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` on a machine without one, when they are asked for."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
