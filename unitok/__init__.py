"""UniTok: an image becomes discrete codes, and codes become an image.

The names are imported at their first use, because torch takes seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitok.config import UniTokConfig
    from unitok.image import load_image, preprocess, to_pil
    from unitok.model import UniTok

__all__ = ["UniTok", "UniTokConfig", "load_image", "preprocess", "to_pil"]

_HOMES = {
    "UniTok": "unitok.model",
    "UniTokConfig": "unitok.config",
    "load_image": "unitok.image",
    "preprocess": "unitok.image",
    "to_pil": "unitok.image",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
