"""Which option an answer in free words means, by VLMEvalKit's rules alone.

Officially GPT reads what these rules cannot; without it such an answer means none of the options.
"""

import re
from collections.abc import Mapping

REFUSED = "Z"
# Fragments of replies by which VLMEvalKit knows a failed request and refusals.
API_FAILURE = "Failed to obtain answer via API"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_SENTENCE = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def infer_option(text: str, choices: Mapping[str, str]) -> str | None:
    """The option that an answer means: a letter, Z for a refusal, None if the rules find none."""
    return _infer_letter(text, choices) or _infer_text(text, choices)


def _infer_letter(text: str, choices: Mapping[str, str]) -> str | None:
    if API_FAILURE in text:
        return None
    if any(refusal in text for refusal in REFUSALS):
        return REFUSED
    tokens = text.translate(_PUNCTUATION).split()
    present = [letter for letter in choices if letter in tokens]
    if len(present) == 1 and tokens.index(present[0]) >= len(tokens) - 4:
        return present[0]
    if not present and REFUSED in tokens:
        return REFUSED
    # Nothing need follow the letter: officially "the answer is clear" means C.
    sentence = _SENTENCE.search(text)
    letter = sentence[1].upper() if sentence else None
    return letter if letter in choices else None


def _infer_text(text: str, choices: Mapping[str, str]) -> str | None:
    answer = text.lower()
    if len(answer) > 2 * sum(map(len, choices.values())):
        return None
    found = [letter for letter, choice in choices.items() if choice.lower() in answer]
    return found[0] if len(found) == 1 else None
