"""What the command line prints: answers on stdout; progress, notices and errors on stderr."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import typer
from huggingface_hub.errors import StrictDataclassError
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from safetensors import SafetensorError

DISTRIBUTION = "unitok-mllm"
# What a user can cause: wrong arguments, files and machines. The strict ones are of a config.json.
USER_ERRORS = (ValueError, OSError, RuntimeError, SafetensorError, StrictDataclassError)

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def say(text: str, *, end: str = "\n") -> None:
    """Print a result as it is: square brackets are no markup."""
    out.print(text, end=end, markup=False)


def announce(text: str) -> None:
    """A notice beside the results."""
    err.print(text, markup=False)


def complain(error: Exception) -> None:
    """One line on stderr."""
    announce(f"error: {' '.join(str(error).split()) or type(error).__name__}")


@contextmanager
def user_errors() -> Iterator[None]:
    """Say in one line what a user caused, and exit with 1."""
    try:
        yield
    except (typer.Exit, typer.Abort):  # RuntimeErrors, but typer's own
        raise
    except USER_ERRORS as error:
        complain(error)
        raise typer.Exit(1) from error


def quiet_libraries() -> None:
    """No notices of libraries between our own lines; their errors still come through."""
    for name in ("DeepSpeed", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)


def project_version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s")


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with rate and remaining time; gives the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), RateColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal
    ) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
