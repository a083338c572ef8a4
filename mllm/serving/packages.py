"""What serving needs beyond the rest of the project."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

from mllm.serving.options import ServerOptions

if TYPE_CHECKING:
    from mllm.pipeline import Pipeline

Serve: TypeAlias = "Callable[[Pipeline, ServerOptions, Callable[[str], None]], None]"
PACKAGES = ("fastapi", "h11", "prometheus_client", "uvicorn")


def load_server(*, has_page: bool = False) -> Serve:
    """The function that serves; raises RuntimeError with the remedy if a package is missing."""
    needed = (*PACKAGES, "gradio") if has_page else PACKAGES
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"serving needs packages that are not installed: {', '.join(missing)}; run "
            "pip install -e '.[serve]' in the checkout"
        )
    from mllm.serving.server import serve

    return serve
