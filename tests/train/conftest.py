"""What a stage of test size starts from."""

from pathlib import Path

import pytest

from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.train.tiny_shards import write_tasks


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved pipeline, and code shards of each task."""
    folder = tmp_path_factory.mktemp("materials")
    pipeline = build_tiny_pipeline()
    pipeline.save_pretrained(folder / "start")
    return {"start": folder / "start", **write_tasks(folder, pipeline)}
