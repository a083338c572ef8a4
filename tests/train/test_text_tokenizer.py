import pytest

from mllm.text_tokenizer import TextTokenizer
from tests.mllm.tiny_text import tiny_lines
from train.text_tokenizer import train_text_tokenizer


def test_the_same_lines_give_the_same_file(tmp_path):
    first = train_text_tokenizer(tiny_lines(), tmp_path / "a", 350)
    second = train_text_tokenizer(iter(tiny_lines()), tmp_path / "b", 350)
    assert first.model_proto == second.model_proto
    assert TextTokenizer.from_file(tmp_path / "a/tokenizer.model").model_proto == first.model_proto


def test_words_of_the_lines_and_of_the_templates_are_one_piece_each(tmp_path):
    tokenizer = train_text_tokenizer(tiny_lines(), tmp_path, 500)
    for word in ("star", "circle", "ASSISTANT", "USER", "Generate", "description"):
        assert len(tokenizer.encode(word)) == 1, word


def test_few_words_give_fewer_pieces_instead_of_an_error(tmp_path):
    assert 259 < len(train_text_tokenizer(["a star", "a circle"], tmp_path, 5000)) < 5000


def test_a_vocabulary_without_room_for_the_bytes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="vocab_size must exceed 259 fixed ids, got 200"):
        train_text_tokenizer(tiny_lines(), tmp_path, 200)
