"""Answers on their way: a folder of files, one for each process that ever asked.

A line holds the number of a question and the answer's text. No two processes share a file, so none
disturbs another, and one that is killed leaves at worst half a line, which readers pass over.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Append = Callable[[Mapping[int, str]], None]


@contextmanager
def open_part(folder: Path) -> Iterator[Append]:
    """A new file in `folder`; gives the function that adds answers by question number."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{uuid.uuid4().hex}.jsonl").open("x", encoding="utf-8") as file:

        def append(answers: Mapping[int, str]) -> None:
            lines = (json.dumps({"number": n, "text": text}) for n, text in answers.items())
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()

        yield append


def read_parts(folder: Path) -> dict[int, str]:
    """All answers in `folder` by question number."""
    answers: dict[int, str] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                record = json.loads(line)
                answers.setdefault(record["number"], record["text"])
    return answers
