"""What the server says about itself."""

import openai
import pytest


def test_the_one_model_is_listed_and_described(server):
    client = server.openai()
    (model,) = client.models.list().data
    assert (model.id, model.object) == ("nano", "model")
    assert client.models.retrieve("nano") == model


def test_another_model_is_not_found(server):
    with pytest.raises(openai.NotFoundError, match="this server runs 'nano'") as caught:
        server.openai().chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "hello"}]
        )
    assert caught.value.code == "model_not_found"


def test_health_and_metrics_are_told(server):
    server.draw()
    with server.http() as client:
        assert client.get("/health").json() == {"status": "ok"}
        metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'unitok_requests_total{path="/v1/images/generations",status="200"}' in metrics.text
    for name in ("unitok_pictures_drawn_total", "unitok_jobs_waiting", "process_resident_memory"):
        assert name in metrics.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/v1/chat/completions", 405),
    ],
)
def test_other_addresses_are_errors_in_openais_form(server, method, path, status):
    with server.http() as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
