import open_clip
import pytest
import torch

from unitok.config import PRESETS
from unitok.text import NUM_BYTES, NUM_SPECIAL, build_text_tokenizer, build_text_tower

TEXTS = ["a photo of a cat", "Two RED circles, left of a star!", "naïve café 你好 🙂", ""]


def test_the_full_vocabulary_gives_open_clips_ids():
    large = PRESETS["large"]
    tokenizer = build_text_tokenizer(large.text_vocab_size, large.text_context_length)
    assert torch.equal(tokenizer(TEXTS), open_clip.tokenize(TEXTS))


@pytest.mark.parametrize("vocab_size", [NUM_BYTES + NUM_SPECIAL, 600, 1024, 20000])
def test_a_smaller_vocabulary_loses_no_text(vocab_size):
    tokenizer = build_text_tokenizer(vocab_size, 77)
    ids = tokenizer(TEXTS)
    start, end = vocab_size - 2, vocab_size - 1
    assert ids.shape == (len(TEXTS), 77)
    assert (ids[:, 0] == start).all()
    # The end of text has the highest id, which is how the tower finds it.
    assert (ids.max(dim=1).values == end).all()
    for row, text in zip(ids, TEXTS, strict=True):
        inner = row[1 : row.argmax()].tolist()
        expected = open_clip.tokenizer._tokenizer.decode(
            open_clip.tokenizer._tokenizer.encode(text)
        )
        assert tokenizer.decode(inner) == expected


def test_common_words_stay_whole_in_a_smaller_vocabulary():
    tokenizer = build_text_tokenizer(1024, 48)
    full = open_clip.tokenizer._tokenizer
    assert tokenizer.encode("the") == full.encode("the")
    assert len(tokenizer.encode("photosynthesis")) > len(full.encode("photosynthesis"))


def test_a_long_text_is_cut_and_still_ends():
    ids = build_text_tokenizer(600, 8)(["a " * 50])
    assert ids.shape == (1, 8)
    assert ids[0, -1] == 599


def test_asking_twice_builds_one_tokenizer():
    assert build_text_tokenizer(600, 8) is build_text_tokenizer(600, 8)
    assert build_text_tokenizer(600, 9) is not build_text_tokenizer(600, 8)


@pytest.mark.parametrize("vocab_size", [0, 513, 49409])
def test_an_impossible_vocabulary_is_refused(vocab_size):
    message = f"must have 514 to 49408 entries, got {vocab_size}"
    with pytest.raises(ValueError, match=message):
        build_text_tokenizer(vocab_size, 77)


def test_the_tower_pools_at_the_end_of_text():
    tower = build_text_tower(
        8, width=16, heads=2, layers=1, vocab_size=600, context_length=8
    ).eval()
    ids = build_text_tokenizer(600, 8)(["star", "star"])
    ids[1, 6:] = 5  # behind the end
    features = tower(ids)
    assert features.shape == (2, 8)
    assert torch.equal(features[0], features[1])
