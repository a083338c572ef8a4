"""The page and the API in one process, behind the same rules."""

import pytest

from tests.mllm.serving.live_server import live_server

KEY = "a-long-secret"


@pytest.fixture(scope="module")
def paged(nano):
    with live_server(nano, has_page=True, api_key=KEY) as server:
        yield server


def get(server, path: str, **headers):
    with server.http() as client:
        return client.get(path, auth=("anyone", KEY), headers=headers)


def test_the_page_and_the_api_are_served_together(paged):
    assert "gradio" in get(paged, "/").text
    assert get(paged, "/v1/models").json()["data"][0]["id"] == "nano"


def test_the_page_needs_the_key_as_the_api_does(paged):
    with paged.http() as client:
        assert client.get("/").status_code == 401
        assert client.post("/gradio_api/queue/join", json={}).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}], ids=str
)
@pytest.mark.parametrize("path", ["/", "/gradio_api/queue/data", "/gradio_api/upload"])
def test_pages_of_other_sites_reach_nothing_of_it(paged, headers, path):
    assert get(paged, path, **headers).status_code == 403


def test_no_file_is_served_beside_the_page(paged):
    assert get(paged, "/gradio_api/file=/etc/passwd").status_code == 404


def test_a_server_without_the_page_has_none(server):
    with server.http() as client:
        assert client.get("/").status_code == 404
