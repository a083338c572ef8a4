"""Who may ask."""

from base64 import b64encode

import openai
import pytest

from mllm.serving.options import ServerOptions
from tests.mllm.serving.live_server import live_server
from tests.mllm.tiny_pipeline import build_tiny_pipeline

KEY = "a-long-secret"


@pytest.fixture(scope="module")
def keyed():
    options = {"allow_origins": ("https://friend.example",), "allow_hosts": ("model.example",)}
    with live_server(build_tiny_pipeline(), api_key=KEY, **options) as server:
        yield server


def get(server, path="/v1/models", **headers):
    with server.http() as client:
        return client.get(path, headers={name.replace("_", "-"): headers[name] for name in headers})


def test_a_server_with_a_key_answers_those_who_have_it(keyed):
    assert len(keyed.openai(api_key=KEY).models.list().data) == 1
    with pytest.raises(openai.AuthenticationError, match="a valid API key is needed"):
        keyed.openai(api_key="a-long-secreT").models.list()


def test_a_browser_that_asks_for_a_password_is_answered(keyed):
    encoded = b64encode(f"anyone:{KEY}".encode()).decode()
    assert get(keyed, authorization=f"Basic {encoded}").status_code == 200
    assert "Basic" in get(keyed).headers["www-authenticate"]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Basic {KEY}", KEY, "Bearer \u00e9", "Bearer a", "Basic YTpi"],
)
def test_anything_but_the_key_is_refused_everywhere(keyed, authorization):
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    for path in ("/v1/models", "/metrics", "/v1/chat/completions", "/elsewhere"):
        answer = get(keyed, path, **headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in answer.text


def test_health_needs_no_key_and_says_no_more_than_that(keyed):
    assert get(keyed, "/health").json() == {"status": "ok"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "localhost.evil.example"])
def test_requests_under_another_name_are_refused(server, host):
    answer = get(server, "/health", host=host)
    assert answer.status_code == 403
    assert "does not answer to the host" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_this_machines_own_names_are_answered(server, host):
    assert get(server, host=host).status_code == 200


def test_a_name_that_was_allowed_is_answered(keyed):
    assert get(keyed, "/health", host="model.example:8000").status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
def test_pages_of_other_sites_are_refused(server, origin):
    answer = get(server, origin=origin)
    assert answer.status_code == 403
    assert "may not ask here" in answer.json()["error"]["message"]


def test_the_servers_own_pages_are_answered(server):
    assert get(server, origin=server.url).status_code == 200


def test_a_site_that_was_allowed_is_answered_and_may_read_it(keyed):
    site = "https://friend.example"
    answer = get(keyed, authorization=f"Bearer {KEY}", origin=site)
    assert answer.headers["access-control-allow-origin"] == site
    refused = get(keyed, origin=site)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, site)
    with keyed.http() as client:
        asked = {"origin": site, "access-control-request-method": "POST"}
        assert client.options("/v1/chat/completions", headers=asked).status_code == 200
        asked["origin"] = "https://evil.example"
        assert client.options("/v1/chat/completions", headers=asked).status_code == 400


def test_an_open_address_without_a_key_is_refused():
    for host in ("0.0.0.0", "::", "192.168.1.5", "myhost"):
        with pytest.raises(ValueError, match="anyone in the network could use the model"):
            ServerOptions(host)
        assert ServerOptions(host, api_key=KEY).api_key == KEY
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert ServerOptions(host).is_private


@pytest.mark.parametrize("key", ["", " ", " key", "schl\u00fcssel", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(ValueError, match="the API key must be printable ASCII"):
        ServerOptions(api_key=key)


def test_the_key_is_not_shown_with_the_options():
    assert KEY not in repr(ServerOptions(api_key=KEY))
