"""A unified multimodal language model on UniTok codes: chat about pictures, and draw them.

The names are imported at their first use: torch and transformers take seconds to load, which
`unitok --help` need not wait for. So `import mllm` alone registers nothing with transformers:
`from mllm import UniTokMLLM, Processor` before `AutoConfig`, `AutoModelForImageTextToText` and
`AutoProcessor` load a model of this kind.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllm.answer import ChatAnswer
    from mllm.config import UniTokMLLMConfig
    from mllm.model import UniTokMLLM
    from mllm.pipeline import Pipeline
    from mllm.processor import Processor
    from mllm.session import ChatSession

__all__ = [
    "ChatAnswer",
    "ChatSession",
    "Pipeline",
    "Processor",
    "UniTokMLLM",
    "UniTokMLLMConfig",
]

_HOMES = {
    "ChatAnswer": "mllm.answer",
    "ChatSession": "mllm.session",
    "Pipeline": "mllm.pipeline",
    "Processor": "mllm.processor",
    "UniTokMLLM": "mllm.model",
    "UniTokMLLMConfig": "mllm.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
