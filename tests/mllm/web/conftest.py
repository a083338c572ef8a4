"""One model, one browser and one server for all tests of the page."""

import pytest

from mllm.pipeline import Pipeline
from tests.mllm.web.browser import find_chromium, open_browser


@pytest.fixture(scope="session")
def nano() -> Pipeline:
    return Pipeline.from_pretrained("nano")


@pytest.fixture(scope="session")
def browser():
    executable = find_chromium()
    if executable is None:
        pytest.skip("needs Debian's chromium (apt-get install chromium)")
    with open_browser(executable) as browser:
        yield browser
