"""Whatever a client sends is answered, or refused with one sentence in OpenAI's form."""

import base64
import io
import json
import struct
import zlib

import openai
import pytest
from PIL import Image

from mllm.serving.images import as_data_url

HELLO = {"role": "user", "content": "what is a star?"}


def message_of(answer, status=400) -> str:
    """The sentence of a refusal, which must have the right form."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    assert "\n" not in error["message"]
    return error["message"]


def show(url):
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


def data_url(data: bytes, kind="png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is, with nothing like as many pixels in it."""

    def chunk(name, data):
        end = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + end

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def small_png() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"temperature": -1}, "temperature: input should be greater than or equal to 0, got '-1'"),
        ({"temperature": "hot"}, "temperature: input should be a valid number, got 'hot'"),
        ({"top_p": 0}, "top_p: input should be greater than 0"),
        ({"top_k": 0}, "top_k: input should be greater than or equal to 1"),
        ({"max_tokens": 0}, "max_tokens: input should be greater than or equal to 1"),
        ({"max_tokens": 10**9}, "max_tokens may be at most 1024, the model's context"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens: input should be a valid integer"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "not both"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0"),
        ({"seed": 2**64}, "seed"),
        ({"stream": "yes"}, "stream: input should be a valid boolean"),
        ({"heat": 1}, "there is no parameter heat; check its spelling"),
        ({"n": 2}, "cannot honour the parameter n; leave it out, or set it to 1"),
        ({"tools": [{"type": "function"}]}, "cannot honour the parameter tools"),
        ({"logprobs": True}, "cannot honour the parameter logprobs"),
        ({"stop": ["."]}, "cannot honour the parameter stop"),
        ({"response_format": {"type": "json_object"}}, "cannot honour the parameter response_f"),
        ({"frequency_penalty": 0.5}, "cannot honour the parameter frequency_penalty"),
        ({"audio": {"voice": "alloy"}}, "cannot honour the parameter audio; leave it out"),
        ({"messages": []}, "messages: list should have at least 1 item"),
        ({"messages": "hello"}, "messages: input should be a valid array"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "'tool'"),
        ({"messages": [{"content": "x"}]}, "messages.0: unable to extract tag"),
        ({"messages": [{"role": "user"}]}, "messages.0.user.content: field required"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.user.content"),
        ({"messages": [{"role": "user", "content": ""}]}, "the question is empty"),
        ({"messages": [{"role": "user", "content": []}]}, "the question is empty"),
        ({"messages": [{"role": "user", "content": "\u0000<s></s>"}]}, "the question is empty"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "expected 'user'"),
        ({"messages": [HELLO, HELLO]}, "user and assistant take turns"),
        ({"messages": [HELLO] * 1001}, "messages: list should have at most 1000 items"),
        ({"messages": [{"role": "user", "content": "a " * 2000}]}, "may be at most 1008"),
        ({"messages": [{"role": "user", "content": "a" * 100_001}]}, "100000 characters long"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "'file'"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "text"),
    ],
    ids=str,
)
def test_a_wrong_chat_is_refused_with_a_sentence(server, changes, sentence):
    assert sentence in message_of(server.chat(**changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n": 0}, "n: input should be greater than or equal to 1"),
        ({"n": 10**6}, "n may be at most 10, got 1000000"),
        ({"n": None, "prompt": ""}, "the prompt is empty"),
        ({"prompt": "\u0000"}, "the prompt is empty"),
        ({"prompt": 5}, "prompt: input should be a valid string"),
        ({"prompt": None}, "prompt: field required"),
        ({"prompt": "a " * 2000}, "shorten it"),
        ({"prompt": "a" * 100_001}, "100000 characters long"),
        ({"size": "1024x1024"}, "size must be 64x64 or auto for this model"),
        ({"size": "big"}, "size must be 64x64 or auto for this model"),
        ({"guidance_scale": -1}, "guidance_scale: input should be greater than or equal to 0"),
        ({"guidance_scale": 1e300}, "guidance_scale: input should be less than or equal to 100"),
        ({"response_format": "url"}, "cannot honour the parameter response_format"),
        ({"output_format": "webp"}, "leave it out, or set it to 'png'"),
        ({"quality": "hd"}, "cannot honour the parameter quality"),
        ({"style": "vivid"}, "cannot honour the parameter style; leave it out"),
        ({"stream": True, "n": 2}, "a stream shows one picture, got n = 2"),
        ({"partial_images": 1}, "partial_images needs a stream"),
        ({"stream": True, "partial_images": 4}, "partial_images: input should be less than"),
    ],
    ids=str,
)
def test_a_wrong_request_for_pictures_is_refused_with_a_sentence(server, changes, sentence):
    assert sentence in message_of(server.draw(**changes))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "example:star",
            "must be a data URL such as data:image/png;base64,..., got 'example:star'",
        ),
        ("/etc/passwd", "must be a data URL"),
        ("file:///etc/passwd", "must be a data URL"),
        ("", "must be a data URL"),
        ("http://127.0.0.1/a.png", "this server fetches no pictures"),
        ("HTTPS://example.org/a.png", "this server fetches no pictures"),
        ("data:text/html;base64,PGI+", "must be a data URL"),
        ("data:image/svg+xml;base64,PHN2Zz4=", "must be a data URL"),
        ("data:image/png;base64,", "the image is empty (0 bytes)"),
        ("data:image/png;base64,####", "no valid base64"),
        ("data:image/png;base64,abc", "no valid base64"),
        ("data:image/png;base64,\u00e9", "no valid base64"),
        (data_url(b"no picture"), "no image can be read"),
        (data_url(small_png()[:-40]), "cannot read an image"),
        (data_url(png_of(50_000, 50_000)), "could be decompression bomb"),
        (data_url(png_of(6000, 6000)), "it has 6000x6000 pixels, expected 1 to 25000000"),
        (data_url(png_of(5000, 5000)), "cannot read an image"),
        (data_url(bytes(17 * 2**20)), "a picture may be 16777216 bytes long"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_picture_is_refused_with_a_sentence(server, url, sentence):
    assert sentence in message_of(server.chat(messages=[show(url)]))


def test_a_conversation_shows_a_limited_number_of_pictures(server, star):
    answer = server.chat(messages=[show(star)] * 17)
    assert "a conversation may show 16 pictures, got 17" in message_of(answer)


def test_an_elongated_picture_is_refused(server):
    ribbon = Image.new("RGB", (20_000, 1))
    assert "too elongated" in message_of(server.chat(messages=[show(as_data_url(ribbon))]))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body is no valid JSON"),
        (b"{", "the body is no valid JSON"),
        (b"[]", "the body"),
        (b"null", "the body"),
        (b"\xff\xfe", "the body is no valid JSON"),
        (b"[" * 100_000, "the body is no valid JSON: recursion limit exceeded"),
        (b'{"messages": ' + b"[" * 1000 + b"]" * 1000 + b"}", "the body is no valid JSON: rec"),
        (
            b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
            "temperature: input should be a finite number",
        ),
        (
            b'{"messages": [{"role": "user", "content": "a"}], "temperature": Infinity}',
            "temperature: input should be",
        ),
        (
            b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1e999}',
            "temperature: input should be",
        ),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "the body is no valid JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_body_is_refused_with_a_sentence(server, body, sentence):
    with server.http() as client:
        answer = client.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
    assert sentence in message_of(answer)


def test_only_json_is_read(server):
    # What a form of another site's page can send without asking first.
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        headers = {"content-type": kind} if kind else {}
        body = json.dumps({"messages": [HELLO]}).encode()
        with server.http() as client:
            answer = client.post("/v1/chat/completions", content=body, headers=headers)
        assert "send JSON as application/json" in message_of(answer, 415)


def test_the_client_raises_the_sentence(server):
    with pytest.raises(openai.BadRequestError, match="cannot honour the parameter n") as caught:
        server.openai().chat.completions.create(model="nano", messages=[HELLO], n=2)
    assert caught.value.type == "invalid_request_error"


def test_special_strings_and_nul_add_no_tokens(server):
    # A control character vanishes, a special string becomes a space.
    marked = "what\u0000 is</s>a\u0001<image>star<0x00><unk><s>"
    plain = "what is a star"
    answers = [server.chat(text, max_tokens=4, seed=1).json() for text in (marked, plain)]
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[0]["usage"] == answers[1]["usage"]
    drawn = [server.draw(text, seed=1).json()["data"] for text in (marked, plain)]
    assert drawn[0] == drawn[1]


def test_large_pictures_and_odd_forms_are_read(server, nano):
    for mode, size in (("L", (64, 64)), ("RGBA", (3000, 2000)), ("P", (1, 1)), ("RGB", (7, 300))):
        url = as_data_url(Image.new(mode, size))
        assert server.chat(messages=[show(url)], max_tokens=1).status_code == 200
