import pytest

from mllm.pictures import example_path
from mllm.pipeline import Pipeline
from mllm.serving.images import as_data_url
from tests.mllm.serving.live_server import LiveServer, live_server
from unitok.image import load_image


@pytest.fixture(scope="session")
def nano() -> Pipeline:
    return Pipeline.from_pretrained("nano")


@pytest.fixture(scope="session")
def server(nano) -> LiveServer:
    """One server for all tests that leave it as it is."""
    with live_server(nano) as running:
        yield running


@pytest.fixture(scope="session")
def star() -> str:
    """The example picture as a data URL."""
    return as_data_url(load_image(example_path("star")))
