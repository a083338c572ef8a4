"""Cleaned answers against those of the official evaluators, and the rules no recording covers."""

from operator import itemgetter

import pytest

from eval.answer_text import (
    CONTRACTIONS,
    PUNCTUATION,
    agreement,
    map_words,
    normalize_m4c,
    normalize_official,
    split_possessives,
    strip_punctuation,
    strip_whitespace,
)
from eval.arithmetic import round_half_away, running_sum
from tests.eval.scoring_goldens import load_cases

CASES = load_cases("vqa_normalize")


@pytest.mark.parametrize("case", CASES, ids=itemgetter("id"))
def test_each_step_of_vqav2_equals_the_official_one(case):
    expected = case["vqa_official"]
    spaced = strip_whitespace(case["input"])
    assert spaced == expected["after_whitespace"]
    assert strip_punctuation(spaced) == expected["after_punctuation"]
    assert map_words(strip_punctuation(spaced)) == expected["normalized"]
    assert normalize_official(case["input"]) == expected["normalized"]


@pytest.mark.parametrize("case", CASES, ids=itemgetter("id"))
def test_each_step_of_m4c_equals_the_official_one(case):
    expected = case["m4c"]
    split = split_possessives(case["input"])
    stripped = strip_punctuation(strip_whitespace(split), unicode_digits=True)
    assert split == expected["after_word_tokenize"]
    assert stripped == expected["after_punctuation"]
    assert normalize_m4c(case["input"]) == expected["normalized"]


@pytest.mark.parametrize("mark", PUNCTUATION)
def test_a_mark_is_a_blank_unless_it_touches_a_blank_anywhere(mark):
    assert strip_punctuation(f"x{mark}y") == "x y"
    assert strip_punctuation(f"x{mark}y z{mark} w") == "xy z w"
    assert strip_punctuation(f"x{mark}y {mark}z") == "xy z"


@pytest.mark.parametrize("mark", PUNCTUATION)
def test_a_comma_between_digits_deletes_every_mark_everywhere(mark):
    assert strip_punctuation(f"x{mark}y1,2") == "xy12"


def test_each_mark_is_judged_by_the_text_as_it_came():
    # The slash becomes a blank, and yet no hyphen touched one in what was given.
    assert strip_punctuation("a/-b") == "a  b"


@pytest.mark.parametrize("mark", "':$%&#*~^|。“\u2013")
def test_other_marks_stay(mark):
    assert strip_punctuation(f"x{mark}y {mark} z") == f"x{mark}y {mark} z"


def test_periods_go_unless_a_digit_follows():
    assert strip_punctuation("U.S.A. is .5 of 3.5.") == "USA is .5 of 3.5"


def test_only_the_first_32_periods_go_and_those_before_digits_do_not_count():
    assert strip_punctuation("." * 40) == "." * 8
    assert strip_punctuation(".5" + "." * 40) == ".5" + "." * 8


def test_vqav2_knows_ascii_digits_only_but_m4c_knows_all():
    assert normalize_official("x/y 3,4") == "xy 34"
    assert normalize_official("x/y ٣,٤") == "x y ٣ ٤"
    assert normalize_official("٣.٤") == "٣٤"
    assert normalize_m4c("٣.٤") == "٣.٤"


def test_vqav2_lowers_letters_one_by_one_but_m4c_by_python_3():
    # A capital I with a dot, and Greek words that end with a sigma.
    assert normalize_official("\u0130") == "i"
    assert normalize_m4c("\u0130") == "i\u0307"
    assert normalize_official("\u0394\u03a3") == "\u03b4\u03c3"
    assert normalize_m4c("\u0394\u03a3") == "\u03b4\u03c2"


def test_there_are_120_contractions_and_those_with_capitals_are_never_met():
    assert len(CONTRACTIONS) == 120
    assert map_words("Im Ive IDVE") == "im ive idve"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("dont", "don't"),
        ("yall", "y'all"),
        ("twas", "'twas"),
        ("somebodyd've", "somebody'd've"),
        ("y'all'dve", "y'all'd've"),
        ("mightn'tve", "mightn't've"),
        ("somebody'd", "somebodyd"),
        ("'ow'sat", "'ow's'at"),
        ("yall'd've", "y'all'd've"),
        ("let's", "let's"),
        ("lets", "lets"),
        ("don't", "don't"),
    ],
)
def test_contractions_get_their_apostrophes(written, meant):
    assert map_words(written) == meant


def test_numbers_become_digits_and_articles_go():
    assert map_words("None zero one TEN eleven The an  a dog") == "0 0 1 10 eleven dog"


def test_m4c_splits_possessives_and_deletes_commas_before_all_else():
    assert normalize_m4c("It's the dog's, isn't it?") == "it 's dog 's isn't it"
    assert normalize_m4c("3,000 x/y") == "3000 x y"


@pytest.mark.parametrize("normalize", [normalize_official, normalize_m4c])
@pytest.mark.parametrize("text", ["", " \n\t", "the", "?!", "."])
def test_nothing_is_left_of_an_answer_without_words(normalize, text):
    assert normalize(text) == ""


@pytest.mark.parametrize(("matches", "share"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_agreement_leaves_each_person_out_once(matches, share):
    truths = ["yes"] * matches + ["no"] * (10 - matches)
    assert agreement("yes", truths) == pytest.approx(share, abs=1e-12)


def test_halves_are_rounded_away_from_zero_only_where_they_are_exact():
    assert round_half_away(40.625) == 40.63
    assert round_half_away(-40.625) == -40.63
    assert round_half_away(2.675) == 2.67  # the float lies below the half
    assert round_half_away(66.66666666666667, 10) == 66.6666666667


def test_sums_keep_the_rounding_errors_of_their_order():
    assert running_sum([0.1] * 10) == 0.9999999999999999
    assert running_sum([]) == 0
