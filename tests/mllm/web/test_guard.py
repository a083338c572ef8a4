"""What the page's server gives away, and what it asks others for: nothing."""

import re
import tempfile
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mllm.web import mount_page
from tests.mllm.web.scripted_engine import ScriptedEngine


@pytest.fixture(scope="module")
def client(nano):
    app = FastAPI()

    @app.get("/health")
    def health() -> str:
        return "well"

    with TestClient(mount_page(app, ScriptedEngine(), nano)) as client:
        yield client


def test_the_page_asks_no_other_host_for_anything(client):
    loaded = re.compile(
        r"""(?:<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']|@import\s+|url\(\s*["']?)"""
        r"(?:https?:)?//"
    )
    for address in ("/", "/theme.css", "/config"):
        text = client.get(address).text
        assert not loaded.search(text), address
        assert "fonts.googleapis" not in text


def test_gradios_analytics_are_off(client):
    assert client.get("/config").json()["analytics_enabled"] is False


def test_no_function_of_the_page_is_offered_to_programs(client):
    functions = client.get("/config").json()["dependencies"]
    assert functions
    assert {each["api_visibility"] for each in functions} == {"private"}


@pytest.mark.parametrize("prefix", ["/gradio_api/file=", "/gradio_api/file/"])
def test_no_file_of_the_server_is_served(client, prefix):
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        for path in ("/etc/passwd", file.name, Path(__file__), "http://localhost/"):
            assert client.get(f"{prefix}{path}").status_code == 404


@pytest.mark.parametrize(
    "verb", ["upload", "run/answer", "api/predict", "component_server", "call/x"]
)
def test_nothing_but_the_pages_own_events_is_taken(client, verb):
    assert client.post(f"/gradio_api/{verb}", json={}).status_code == 404


def test_the_servers_own_addresses_stay_what_they_are(client):
    assert client.get("/health").json() == "well"
