"""Chat in a terminal: one answer, or a session with commands; works with piped input, too."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from mllm.console import USER_ERRORS, announce, complain, say
from mllm.drawings import DrawSettings, build_notes
from mllm.pictures import check_png, make_grid, save_png
from mllm.session import ChatSession
from unitok.files import atomic_write, check_output

HELP = """\
/image PATH   show a picture with the next question (or example:NAME)
/reset        forget the conversation
/save PATH    save the last drawing as PATH.png, or the conversation as any other file
/help         this list
/quit         leave (so does the end of the input)"""


def check_chat(question: str | None, output: str | Path | None, *, force: bool) -> None:
    """Say what keeps a question from being asked or its answer's picture from being written, before
    a model is loaded."""
    if question is not None and not question.strip():
        raise ValueError("the question is empty; ask something, or leave it out to talk")
    if output is None:
        return
    if question is None:
        raise ValueError("-o is for the answer to one question; in a session use /save PATH")
    check_png(output, force=force)


def answer_question(
    session: ChatSession, question: str, *, output: str | Path | None = None
) -> None:
    """Print one answer while it is written; what is drawn goes to the PNG `output`, several
    pictures as a grid."""
    pictures = print_answer(session, question)
    if pictures and output is None:
        announce("a picture was drawn; pass -o out.png to keep it")
    elif pictures and output is not None:
        save_png(make_grid(pictures), output, notes=chat_notes(session, question))
        announce(f"wrote {output}")
    elif output is not None:
        announce(f"nothing was drawn, so {output} was not written")


def print_answer(session: ChatSession, question: str) -> list[Image.Image]:
    """Stream one answer to stdout, each picture as a line of its own; returns the pictures."""
    pictures = []
    at_line_start = True
    for piece in session.ask(question):
        if isinstance(piece, str):
            text = piece.lstrip() if at_line_start else piece
            say(text, end="")
            at_line_start = at_line_start and not text
        else:
            pictures.append(piece)
            say(("" if at_line_start else "\n") + f"[picture {piece.width}x{piece.height}]")
            at_line_start = True
    if not at_line_start:
        say("")
    if session.notice is not None:
        announce(session.notice)
    return pictures


def chat_notes(session: ChatSession, question: str) -> dict[str, object]:
    """What goes into the PNG of a picture that answers `question`."""
    settings = DrawSettings(seed=session.settings.seed)
    return {"question": question, **build_notes(session.pipeline, settings)}


def run_session(session: ChatSession) -> None:
    """Ask for questions and commands until the input ends."""
    if sys.stdin.isatty():
        announce("Ask something, show a picture with /image PATH, or see /help.")
    for line in read_lines():
        try:
            if line.startswith("/"):
                if not run_command(session, line):
                    return
            elif line or session.pending:
                if not sys.stdin.isatty():
                    say(f"> {line}")  # nobody typed it where the answer appears
                if print_answer(session, line):
                    announce("/save FILE.png keeps the drawing")
        except KeyboardInterrupt:
            announce("\n(broken off)")
        except USER_ERRORS as error:
            complain(error)


def read_lines() -> Iterator[str]:
    """Lines of stdin, with a prompt for people; ends at EOF and at Ctrl-C."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            if prompt:
                announce("")
            return


def run_command(session: ChatSession, line: str) -> bool:
    """Carry out a line that starts with a slash; False ends the session."""
    name, _, argument = line.partition(" ")
    if name in ("/quit", "/exit"):
        return False
    commands: dict[str, Callable[[], None]] = {
        "/image": lambda: add_picture(session, argument.strip()),
        "/reset": lambda: reset(session),
        "/save": lambda: save(session, argument.strip()),
        "/help": lambda: say(HELP),
    }
    if name not in commands:
        raise ValueError(f"no command {name}; the commands are {', '.join(commands)}, /quit")
    commands[name]()
    return True


def add_picture(session: ChatSession, source: str) -> None:
    if not source:
        raise ValueError("/image needs a path, or example:NAME")
    session.add_picture(source)
    announce(f"{source} goes with your next question")


def reset(session: ChatSession) -> None:
    session.reset()
    announce("forgotten; a new conversation begins")


def save(session: ChatSession, target: str) -> None:
    """The last drawing as a PNG; with any other suffix the conversation as text."""
    if not target:
        raise ValueError("/save needs a path: picture.png, or chat.txt for the conversation")
    if Path(target).exists():
        raise FileExistsError(f"{target} exists already; choose another name")
    path = check_output(target)
    if path.suffix.lower() == ".png":
        drawing = session.last_drawing()
        if drawing is None:
            raise ValueError("nothing was drawn yet; ask for a drawing first")
        save_png(drawing.picture, path, notes=chat_notes(session, drawing.question))
    else:
        with atomic_write(path) as temporary:
            temporary.write_text(session.transcript(), encoding="utf-8")
    announce(f"wrote {path}")
