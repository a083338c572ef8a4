"""Short answers to questions about pictures: how they are cleaned, and how people agree on them.

VQAv2's evaluator (GT-Vision-Lab/VQA, a013f00) and the one of M4C, which LLaVA (c121f04) applies to
TextVQA and to what it uploads, share `strip_punctuation` and `map_words`. Their oddities are kept:
each decides published scores. The former runs in Python 2, the latter in Python 3, which differ
in what a digit is and in lower-casing.
"""

import re
from collections.abc import Iterator, Sequence

from eval.arithmetic import running_sum

# In the order in which they are replaced.
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
MAX_PERIODS = 32  # officially a regular expression's flag stands where the number belongs
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
FULL_AGREEMENT = 3  # so many others make an answer entirely right

_ASCII_COMMA = re.compile(r"[0-9],[0-9]")
_ASCII_PERIOD = re.compile(r"\.(?![0-9])")
_UNICODE_PERIOD = re.compile(r"\.(?!\d)")

# Each is written without its apostrophes, too.
_CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's I'm I've isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've
o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've 'twas
wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_WOULD_HAVE = "he I it she somebody someone something there they we who y'all you"
_NOT_HAVE = "could had might should would"
_IRREGULAR = {
    "let's": "let's",
    "she's": "she's",
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
}


def _contractions() -> Iterator[tuple[str, str]]:
    for word in _CONTRACTED.split():
        yield word.replace("'", ""), word
    for word in _WOULD_HAVE.split():
        for misspelt in (f"{word}d've", f"{word}'dve"):
            yield misspelt, f"{word}'d've"
    for word in _NOT_HAVE.split():
        for misspelt in (f"{word}nt've", f"{word}n'tve"):
            yield misspelt, f"{word}n't've"
    yield from _IRREGULAR.items()


# Keys with a capital are official and never met: text is lower-cased first.
CONTRACTIONS = dict(_contractions())


def strip_whitespace(text: str) -> str:
    """Newlines and tabs as blanks, none at the ends."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def strip_punctuation(text: str, *, unicode_digits: bool = False) -> str:
    """Each punctuation mark deleted or made a blank, by what stands around it anywhere in `text`.

    A mark next to a blank is deleted at all its places, and all marks are where a comma separates
    two digits. Of the periods, the first 32 that no digit follows are deleted.
    """
    has_digit_comma = _ASCII_COMMA.search(text) is not None
    stripped = text
    for mark in PUNCTUATION:
        is_deleted = has_digit_comma or f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if is_deleted else " ")
    period = _UNICODE_PERIOD if unicode_digits else _ASCII_PERIOD
    return period.sub("", stripped, count=MAX_PERIODS)


def map_words(text: str) -> str:
    """Lower-case words with digits for numbers, no articles, and apostrophes where they belong."""
    numbers = (NUMBERS.get(word, word) for word in _python2_lower(text).split())
    return " ".join(CONTRACTIONS.get(word, word) for word in numbers if word not in ARTICLES)


def _python2_lower(text: str) -> str:
    """Character by character: no second character for a dotted I, no sigma that ends words."""
    return "".join("i" if letter == "İ" else letter.lower() for letter in text)


def normalize_official(text: str) -> str:
    """An answer as VQAv2's evaluator compares it, where it normalises answers at all."""
    return map_words(strip_punctuation(strip_whitespace(text)))


def split_possessives(text: str) -> str:
    """M4C's first step: lower-case, commas and question marks deleted, a blank before 's."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def normalize_m4c(text: str) -> str:
    """An answer as M4C's evaluator compares it."""
    cleaned = strip_whitespace(split_possessives(text))
    return map_words(strip_punctuation(cleaned, unicode_digits=True))


def agreement(answer: str, ground_truths: Sequence[str]) -> float:
    """How many of the people who were asked gave this very answer, as an accuracy of 0 to 1.

    Each person in turn is left out, and three matches among the others are full agreement.
    """
    matches = [truth == answer for truth in ground_truths]
    total = sum(matches)
    shares = (min(1.0, (total - is_match) / FULL_AGREEMENT) for is_match in matches)
    return running_sum(shares) / len(matches)
