"""Fetching pictures: which addresses are asked, and what may come back."""

import asyncio
import base64

import pytest

from mllm.serving import remote
from mllm.serving.options import Limits
from mllm.serving.remote import Target, fetch_picture, is_public
from tests.mllm.serving.live_server import live_server
from tests.mllm.tiny_pipeline import build_tiny_pipeline

PUBLIC = "93.184.216.34"
LIMITS = Limits(image_bytes=1000, fetch_seconds=2)


def response(body=b"", status=b"200 OK", *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers, b"", b""]
    return b"\r\n".join(lines) + body


class Network:
    """Stands in for the name service and for all other machines."""

    def __init__(self, monkeypatch) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.answers: list[bytes] = []
        self.connections: list[tuple] = []
        self.sent: list[bytes] = []
        monkeypatch.setattr(remote, "resolve", self.resolve)
        monkeypatch.setattr(asyncio, "open_connection", self.connect)

    async def resolve(self, host, port):
        addresses = self.addresses.get(host, [PUBLIC])
        if len(addresses) > 1 and addresses[0] == "once":
            self.addresses[host] = addresses[2:]
            return [addresses[1]]
        return addresses

    async def connect(self, address, port, *, ssl, server_hostname):
        self.connections.append((address, port, server_hostname))
        reader = asyncio.StreamReader()
        if self.answers:
            reader.feed_data(self.answers.pop(0))
            reader.feed_eof()
        return reader, Writer(self.sent)


class Writer:
    def __init__(self, sent):
        self.sent = sent

    def write(self, data):
        self.sent.append(data)

    async def drain(self):
        pass

    def close(self):
        pass

    async def wait_closed(self):
        pass


@pytest.fixture
def network(monkeypatch) -> Network:
    return Network(monkeypatch)


def fetch(url, limits=LIMITS) -> bytes:
    return asyncio.run(fetch_picture(url, limits))


def test_a_picture_is_fetched_from_the_checked_address_in_the_name_of_its_host(network):
    network.answers = [response(b"picture")]
    assert fetch("https://pictures.example/a%20b.png?size=1") == b"picture"
    assert network.connections == [(PUBLIC, 443, "pictures.example")]
    assert network.sent[0].startswith(
        b"GET /a%20b.png?size=1 HTTP/1.1\r\nhost: pictures.example\r\n"
    )


def test_a_name_is_looked_up_once(network):
    network.addresses["pictures.example"] = ["once", PUBLIC, "127.0.0.1"]
    network.answers = [response(b"picture")]
    fetch("http://pictures.example/a.png")
    assert network.connections == [(PUBLIC, 80, None)]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.5.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "2001:0:1::",
        "fe80::1%eth0",
    ],
)
def test_addresses_that_are_not_public_are_never_asked(network, address):
    assert not is_public(address)
    for addresses in ([address], [PUBLIC, address]):
        network.addresses["inside.example"] = addresses
        with pytest.raises(ValueError, match="is not public"):
            fetch("http://inside.example/a.png")
    assert network.connections == []


def test_public_addresses_are_asked():
    assert is_public(PUBLIC)
    assert is_public("2606:2800:220:1::1")


def test_where_an_answer_leads_is_checked_again(network):
    network.addresses["inside.example"] = ["127.0.0.1"]
    network.answers = [response(b"", b"302 Found", b"Location: http://inside.example/a.png")]
    with pytest.raises(ValueError, match="is not public"):
        fetch("http://pictures.example/a.png")
    network.answers = [
        response(b"", b"301 Moved", b"Location: /b.png"),
        response(b"picture"),
    ]
    assert fetch("http://pictures.example/a.png") == b"picture"
    assert network.sent[-1].startswith(b"GET /b.png ")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (response(b"", b"404 Not Found"), "answers with status 404"),
        (response(b"", b"302 Found"), "answers with status 302"),
        (response(b"a" * 1001), "a picture may be 1000 bytes long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "cannot be fetched"),
        (b"SSH-2.0\r\n\r\n", "cannot be fetched"),
        (b"", "cannot be fetched"),
    ],
)
def test_other_answers_are_refused_with_a_sentence(network, answer, sentence):
    network.answers = [answer]
    with pytest.raises(ValueError, match=sentence):
        fetch("http://pictures.example/a.png")


def test_an_address_that_leads_on_for_ever_is_left(network):
    network.answers = [response(b"", b"302 Found", b"Location: /again")] * 9
    with pytest.raises(ValueError, match="leads on more than 3 times"):
        fetch("http://pictures.example/a.png")


def test_a_machine_that_does_not_answer_is_left(network):
    with pytest.raises(ValueError, match="took longer than"):
        fetch("http://pictures.example/a.png", Limits(fetch_seconds=0.1))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://pictures.example/a.png",
        "file:///etc/passwd",
        "http://",
        "http://user:password@pictures.example/a.png",
        "http://pictures.example:22/a.png",
        "http://pictures.example:99999/a.png",
        "http://[::1/a.png",
        "http://pictures.example/a b.png",
        "http://pictures.example/\u00e9.png",
        "http://" + "a" * 300 + ".example/",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match="a picture's address"):
        Target.from_url(url)


def test_a_server_that_may_fetch_answers_about_the_fetched_picture(star, monkeypatch):
    pipeline = build_tiny_pipeline()
    data = base64.b64decode(star.partition(",")[2])

    async def fetched(url, limits):
        assert url == "https://pictures.example/star.png"
        return data

    monkeypatch.setattr("mllm.serving.conversation.fetch_picture", fetched)
    answers = []
    with live_server(pipeline, fetch_images=True) as server:
        for url in ("https://pictures.example/star.png", star):
            part = {"type": "image_url", "image_url": {"url": url}}
            body = server.chat(messages=[{"role": "user", "content": [part]}], max_tokens=4).json()
            answers.append(body["choices"][0]["message"]["content"])
    assert answers[0] == answers[1]
