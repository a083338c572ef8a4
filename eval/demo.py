"""The main job of the project on a fresh machine: `make demo`, or `python -m eval.demo`.

The embedded model looks at pictures and talks about them, draws from prompts and in a chat, and
takes pictures apart into codes and back. Everything is judged, printed and put on a page.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from eval.demo_items import (
    NUM_HELD_OUT,
    NUM_RECONSTRUCTIONS,
    PROMPTS_PER_TASK,
    ChatDrawing,
    Conversation,
    DrawnPrompt,
    Reconstruction,
    Turn,
    draw_in_chat,
    draw_prompts,
    hold_conversations,
    reconstruct_scenes,
)
from eval.demo_page import build_page
from eval.demo_results import Demo, StoredScores, compare_scores, load_stored_scores
from eval.demo_sheet import build_sheet, build_strip
from eval.examples import EXAMPLES
from eval.memory import peak_memory_gib
from eval.scene_text import TASKS
from mllm.console import (
    announce,
    out,
    progress_bar,
    quiet_libraries,
    say,
    user_errors,
)
from mllm.drawings import prepare_folder
from mllm.pictures import save_png
from mllm.pipeline import Pipeline
from unitok.files import atomic_write, check_output

SHEET_FILE = "contact_sheet.png"
PAGE_FILE = "index.html"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Item = TypeVar("Item")
Seconds = dict[str, float]


def run_demo(pipeline: Pipeline, *, seed: int = 0, seconds: Seconds | None = None) -> Demo:
    """Do everything once, printing each result as it comes; `seconds` are of stages before."""
    seconds = dict(seconds or {})
    with stage("talking", seconds):
        talks = hold_conversations(pipeline, seed)
        conversations = follow(talks, len(EXAMPLES) + NUM_HELD_OUT, "talking", tell_conversation)
    with stage("drawing", seconds):
        drawn = draw_prompts(pipeline, seed)
        prompts = follow(drawn, PROMPTS_PER_TASK * len(TASKS), "drawing", tell_prompt)
        chat_drawing = draw_in_chat(pipeline, seed)
        tell_chat_drawing(chat_drawing)
    with stage("encoding and decoding", seconds):
        pairs = reconstruct_scenes(pipeline, seed)
        rebuilt = follow(pairs, NUM_RECONSTRUCTIONS, "encoding and decoding", tell_reconstruction)
    return Demo(
        seed=seed,
        model_fingerprint=pipeline.fingerprints()["model_fingerprint"],
        conversations=conversations,
        prompts=prompts,
        chat_drawing=chat_drawing,
        reconstructions=rebuilt,
        seconds=seconds,
        peak_memory_gib=peak_memory_gib(),
    )


def write_demo(demo: Demo, folder: Path, stored: StoredScores | None) -> None:
    """Write the contact sheet and the page, replacing those of an earlier run."""
    save_png(build_sheet(demo), folder / SHEET_FILE)
    page = build_page(demo, stored, next_steps=next_steps(folder))
    with atomic_write(folder / PAGE_FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")


def next_steps(folder: Path) -> list[str]:
    """Commands to go on with, spelled so that they work where the demo was started."""
    command = unitok_command()
    return [
        f"{command} chat --image example:shapes",
        f'{command} chat "what color is the triangle?" --image example:pair',
        f'{command} generate "a red star above a blue ring" -n 4 -o {folder}/stars.png --force',
        f"{command} reconstruct example:rings -o {folder}/rings.png --force",
        f"{command} --help",
    ]


def unitok_command() -> str:
    """How the command line tool is called here: by its path when it is not on the PATH."""
    beside_python = Path(sys.executable).with_name("unitok")
    if shutil.which("unitok") or not beside_python.exists():
        return "unitok"
    here = Path.cwd()
    return str(beside_python.relative_to(here) if here in beside_python.parents else beside_python)


# ---- telling -------------------------------------------------------------------------------------


@contextmanager
def stage(name: str, seconds: Seconds) -> Iterator[None]:
    """Announce a stage and note how long it took."""
    announce(f"-- {name}")
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def follow(
    items: Iterable[Item], total: int, name: str, tell: Callable[[Item], None]
) -> list[Item]:
    """Collect items as they are made, with a bar, and tell of each."""
    done: list[Item] = []
    with progress_bar(name) as progress:
        for item in items:
            done.append(item)
            tell(item)
            progress(len(done), total)
    return done


def tell_conversation(conversation: Conversation) -> None:
    say(f"\n[{conversation.title}]")
    for turn in conversation.turns:
        tell_turn(turn)


def tell_turn(turn: Turn) -> None:
    verdict = "right" if turn.right else f"WRONG, expected: {turn.expected}"
    say(f"  {turn.question}\n    {turn.answer or '(no answer)'}   ({verdict})")


def tell_prompt(drawn: DrawnPrompt) -> None:
    say(f"{drawn.num_right} of {len(drawn.drawings)} right  {drawn.task_words:14} {drawn.prompt}")


def tell_chat_drawing(chat: ChatDrawing) -> None:
    say(f"\n[a drawing in a chat]\n  {chat.request}\n    {chat.answer or '(no text)'}")
    if chat.drawing is None:
        say("    (no drawing came)")
    else:
        verdict = "right" if chat.drawing.right else f"WRONG, {chat.drawing.reason}"
        say(f"    [picture: {chat.drawing.seen}]   ({verdict})")
    if chat.follow_up is not None:
        tell_turn(chat.follow_up)


def tell_reconstruction(each: Reconstruction) -> None:
    verdict = "the same objects" if each.right else "NOT the same objects"
    say(f"PSNR {each.psnr:.1f} dB, {verdict}")


def tell_scores(demo: Demo, stored: StoredScores | None) -> None:
    """This run's scores beside the stored ones."""
    table = Table(title="right in this run, beside the stored full scores (held-out)")
    for heading in ("", "this run", "stored", "stored, shuffled"):
        table.add_column(heading)
    for row in compare_scores(demo, stored):
        table.add_row(row.name, row.live, row.full, row.shuffled)
    out.print(table)
    if stored is None:
        say("no stored scores in this checkout; measure them with: python -m eval.nano")
    else:
        say(stored.origin(demo.model_fingerprint))


def tell_end(demo: Demo, folder: Path) -> None:
    """What it took, where to look, and how to go on."""
    say(f"\n{sum(demo.seconds.values()):.0f} s, peak memory {demo.peak_memory_gib:.2f} GiB")
    say(f"look at {folder / PAGE_FILE} and {folder / SHEET_FILE}; then try:")
    for command in next_steps(folder):
        say(f"  {command}")


# ---- command -------------------------------------------------------------------------------------


def show(model: str, folder: Path, *, seed: int) -> None:
    """The whole demo, from loading to the page."""
    prepare_folder(folder)
    for name in (SHEET_FILE, PAGE_FILE):
        check_output(folder / name, force=True)
    stored = load_stored_scores()
    seconds: Seconds = {}
    with stage("loading", seconds):
        pipeline = Pipeline.from_pretrained(model)
    demo = run_demo(pipeline, seed=seed, seconds=seconds)
    with stage("writing the page", demo.seconds):
        write_demo(demo, folder, stored)
    tell_scores(demo, stored)
    tell_end(demo, folder)


def write_strip(model: str, path: Path) -> None:
    """The README's strip of pictures."""
    check_output(path, force=True)
    strip = build_strip(Pipeline.from_pretrained(model))
    save_png(strip, path)
    say(f"wrote {path}")


@app.command(
    help="Let the embedded model look at pictures, talk about them and draw.\n\n"
    "Example: python -m eval.demo -o demo --seed 1"
)
def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the page")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Other scenes, prompts and drawings")] = 0,
    model: Annotated[str, typer.Option(help="nano, a folder or a hub name")] = "nano",
    strip: Annotated[
        Path | None, typer.Option(help="Only write the strip that opens the README to this PNG")
    ] = None,
) -> None:
    quiet_libraries()
    with user_errors():
        if strip is not None:
            write_strip(model, strip)
        else:
            show(model, output, seed=seed)


if __name__ == "__main__":
    app()
