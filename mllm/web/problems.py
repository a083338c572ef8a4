"""What went wrong, in one sentence for the person at the page; the rest goes to the log."""

import logging

from mllm.engine import QueueFull
from mllm.progress import Cancelled

UNEXPECTED = "Something went wrong on the server; try again, or ask its operator to read the log."
BUSY = "This page is still working on an answer; wait for it, or stop it."
EMPTY_QUESTION = "Write a question first, or add a picture."
EMPTY_PROMPT = "Describe first what to draw."
STOPPED = "Stopped."

logger = logging.getLogger(__name__)


def explain(error: Exception) -> str:
    """One sentence about `error`; what nobody at the page could have caused is only logged."""
    if isinstance(error, Cancelled):
        return STOPPED
    if isinstance(error, QueueFull):
        return "Many people are waiting for this model right now; try again in a moment."
    if isinstance(error, ValueError):
        return as_sentence(str(error))
    logger.error("a request of the page failed", exc_info=error)
    return UNEXPECTED


def as_sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:].rstrip(".") + "."
