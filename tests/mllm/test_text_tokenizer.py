import random
import sys

import pytest
import sentencepiece
import torch
from transformers.generation.streamers import TextStreamer

from mllm.text_tokenizer import TextTokenizer, clean_text
from tests.mllm.tiny_text import tiny_tokenizer

FORBIDDEN_IDS = set(range(5))
SPECIALS = (
    "<s>",
    "</s>",
    "<S>",
    "<unk>",
    "<image>",
    "<pad>",
    "<unconditional>",
    "<0x00>",
    "<0x0a>",
)


def random_text(rng: random.Random) -> str:
    """Any code points, lone surrogates included, mixed with special strings and their halves."""
    pieces = [
        chr(rng.randrange(sys.maxunicode + 1)),
        chr(rng.randrange(0x20)),
        rng.choice(SPECIALS),
        rng.choice(SPECIALS)[: rng.randrange(4)],
        rng.choice("<>/s0x \n\t\u2581ab"),
    ]
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(30)))


def test_no_text_of_a_user_gives_a_special_id_or_a_picture_mark():
    rng = random.Random(0)
    tokenizer = tiny_tokenizer()
    for _ in range(3000):
        text = random_text(rng)
        cleaned = clean_text(text)
        for starts_word in (True, False):
            ids = tokenizer.encode(cleaned, starts_word=starts_word)
            assert not FORBIDDEN_IDS.intersection(ids), repr(text)
        assert clean_text(cleaned) == cleaned, repr(text)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("what color?\x00\x01", "what color?"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("a</s>b", "a b"),
        ("<<s>s>", "< s>"),
        ("<\x00s>a", "a"),
        ("<IMAGE> caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
        ("\ud800", ""),
        ("1 < 2 > 0", "1 < 2 > 0"),
    ],
)
def test_cleaning_removes_controls_and_special_strings_only(text, cleaned):
    assert clean_text(text) == cleaned


def test_cleaning_a_long_nested_text_takes_linear_time():
    assert clean_text("<" * 100_000 + "s>" * 100_000).startswith("<")


def test_decode_of_encode_is_the_text():
    rng = random.Random(1)
    tokenizer = tiny_tokenizer()
    for _ in range(500):
        text = clean_text(random_text(rng)).replace("\u2581", "")
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ids_are_those_of_sentencepiece():
    tokenizer = tiny_tokenizer()
    model = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_proto)
    for text in ("a red star", "  two spaces ", "\nwhat", "USER: ", "", "\U0001f600 \u2581"):
        assert tokenizer.encode(text) == model.encode(text)


def test_text_that_continues_has_no_leading_space():
    tokenizer = tiny_tokenizer()
    whole = tokenizer.encode("left of")
    assert tokenizer.encode("left") + tokenizer.encode(" of", starts_word=False) == whole
    assert tokenizer.encode("left", starts_word=False) != tokenizer.encode("left")


def test_decode_leaves_out_special_ids_marks_and_placeholders():
    tokenizer = tiny_tokenizer()
    ids = [1, *tokenizer.encode("a red star"), 3, len(tokenizer), -200, 4, 2, 0]
    assert tokenizer.decode(ids) == "a red star"
    assert tokenizer.decode(torch.tensor(ids)) == "a red star"


def test_a_transformers_streamer_prints_the_answer(capsys):
    tokenizer = tiny_tokenizer()
    streamer = TextStreamer(tokenizer, skip_prompt=True)
    streamer.put(torch.tensor([[1, 5, 6]]))
    for token_id in tokenizer.encode("a red star"):
        streamer.put(torch.tensor([token_id]))
    streamer.end()
    assert capsys.readouterr().out == "a red star\n"


def test_save_and_load_give_the_same_ids(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save(tmp_path)
    loaded = TextTokenizer.from_file(tmp_path / "tokenizer.model")
    assert loaded.encode("a red star") == tokenizer.encode("a red star")


def test_a_missing_or_broken_model_file_is_named(tmp_path):
    path = tmp_path / "tokenizer.model"
    with pytest.raises(FileNotFoundError, match=r"no text tokenizer at .*tokenizer\.model"):
        TextTokenizer.from_file(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="is no sentencepiece model"):
        TextTokenizer.from_file(path)
