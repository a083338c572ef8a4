"""The whole command in a process of its own: how it starts, and how it ends."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import httpx
import pytest
from typer.testing import CliRunner

from mllm.cli import app
from mllm.serving import packages
from mllm.serving.options import ServerOptions, public_name
from mllm.serving.server import open_socket
from tests.mllm.serving.held_engine import HeldEngine
from tests.mllm.serving.live_server import live_server
from tests.mllm.tiny_pipeline import build_tiny_pipeline

STARTED = re.compile(r"answers at (http://\S+)/v1")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_answers_until_it_is_told_to_stop(model, number):
    command = "from mllm.cli import main; main()"
    arguments = ["serve", "--port", "0", "--model", model]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        log = ""
        while not (found := STARTED.search(log)):
            line = process.stderr.readline()
            assert line, log
            log += line
        with urllib.request.urlopen(f"{found[1]}/v1/models") as answer:
            assert json.load(answer)["data"][0]["id"] == "tiny"
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert rest.splitlines()[-1] == "stopped"
    assert "Traceback" not in rest


def start_asking(server, engine, answers):
    thread = threading.Thread(target=lambda: answers.append(server.draw()))
    thread.start()
    engine.wait_for("held", 1)
    return thread


def test_what_is_in_work_when_the_server_stops_is_finished():
    engine, answers = HeldEngine(build_tiny_pipeline()), []
    with live_server(engine.pipeline, engine=engine) as server:
        asking = start_asking(server, engine, answers)
        server.server.should_exit = True
        time.sleep(0.5)
        with pytest.raises(httpx.ConnectError), server.http() as client:
            client.get("/health").raise_for_status()
        engine.release()
        asking.join()
    assert answers[0].status_code == 200


def test_what_cannot_be_finished_in_time_is_refused():
    engine, answers = HeldEngine(build_tiny_pipeline()), []
    with live_server(engine.pipeline, engine=engine, drain_seconds=0.3) as server:
        asking = start_asking(server, engine, answers)
        server.server.should_exit = True
        asking.join()
    assert answers[0].status_code == 503
    assert "the server is being stopped" in answers[0].json()["error"]["message"]


def test_a_port_in_use_is_one_sentence():
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address"):
            open_socket("127.0.0.1", port)


def test_an_open_address_without_a_key_is_refused_before_anything_is_loaded():
    result = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--model", "nowhere"])
    assert result.exit_code == 1
    assert "set an API key (UNITOK_API_KEY), or listen on 127.0.0.1" in result.output


def test_missing_packages_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(packages, "PACKAGES", ("fastapi", "no_such_package"))
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 1
    assert "not installed: no_such_package; run pip install -e '.[serve]'" in result.output


@pytest.mark.parametrize("values", [{"port": 70000}, {"max_waiting": 0}])
def test_wrong_options_are_refused(values):
    with pytest.raises(ValueError, match="must be"):
        ServerOptions(**values)


def test_a_folder_is_known_to_clients_by_its_name_alone(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    assert public_name(str(folder)) == "mine"
    assert public_name("nano") == "nano"
    assert public_name("OWNER/NAME") == "OWNER/NAME"


def test_the_server_listens_on_this_machine_alone():
    assert ServerOptions().host == "127.0.0.1"
    with live_server(build_tiny_pipeline()) as server:
        port = int(server.url.rpartition(":")[2])
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection(("127.0.0.2", port), 5),
        ):
            pass
