"""The drawn world as raw training data: the files that people bring to `train.extract_codes`.

    python -m train.scene_dataset -o data/scenes --num-examples 20000

writes captions.tar (webdataset: pictures with captions), chats.jsonl with images/ (LLaVA: questions
about a picture, many of them drills about places, and conversations in which both sides show
pictures) and texts.txt. The same number always gives the same files; the held-out split is never
among them.
"""

import io
import itertools
import json
import random
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from PIL import Image

from eval.scenes import Scene, render
from mllm.console import announce, progress_bar, user_errors
from mllm.generation import Progress
from mllm.messages import Message
from train.scene_data import KEPT_FOR_PAIRS, training_dialogue, training_example
from train.scene_lessons import QuestionChooser, choose_questions, drill
from unitok.files import atomic_write

CAPTIONS_FILE = "captions.tar"
CHATS_FILE = "chats.jsonl"
TEXTS_FILE = "texts.txt"
IMAGES_FOLDER = "images"
# Shares of the conversations, about those of the nano recipe.
ChatKind = Literal["drill", "questions", "dialogue"]
CHAT_SHARES: dict[ChatKind, float] = {"drill": 0.55, "questions": 0.4, "dialogue": 0.05}
ROLES = {"user": "human", "assistant": "gpt"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def write_dataset(folder: Path, *, num_examples: int, image_size: int, progress: Progress) -> None:
    """Write `num_examples` captioned pictures and as many conversations, in an empty folder."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder")
    (folder / IMAGES_FOLDER).mkdir(parents=True)
    examples = thinned_examples()
    with atomic_write(folder / CAPTIONS_FILE) as path, tarfile.open(path, "w") as tar:
        for index in range(num_examples):
            scene, caption = next(examples)
            add_file(tar, f"{index:07d}.png", png_bytes(scene, image_size))
            add_file(tar, f"{index:07d}.txt", caption.encode())
            progress(index + 1, 2 * num_examples)
    with (
        atomic_write(folder / CHATS_FILE) as chats_path,
        atomic_write(folder / TEXTS_FILE) as texts_path,
        chats_path.open("w", encoding="utf-8") as chats,
        texts_path.open("w", encoding="utf-8") as texts,
    ):
        for index in range(num_examples):
            scene, caption = next(examples)
            sample = llava_sample(index, scene, folder / IMAGES_FOLDER, image_size=image_size)
            chats.write(json.dumps(sample) + "\n")
            texts.write(caption + "\n")
            progress(num_examples + index + 1, 2 * num_examples)


def thinned_examples() -> Iterator[tuple[Scene, str]]:
    """Training pictures and captions without end, those of a single object thinned out."""
    for index in itertools.count():
        scene, caption = training_example(index)
        if random.Random(f"kept:{index}").random() < KEPT_FOR_PAIRS[len(scene.objects)]:
            yield scene, caption


def llava_sample(index: int, scene: Scene, images: Path, *, image_size: int) -> dict[str, Any]:
    """Conversation `index` in LLaVA's form, about `scene` unless it brings pictures of its own.

    Its pictures are written into `images`.
    """
    rng = random.Random(f"chat:{index}")
    (kind,) = rng.choices(tuple(CHAT_SHARES), tuple(CHAT_SHARES.values()))
    if kind == "dialogue":
        conversations, scenes = llava_turns(training_dialogue(index))
    else:
        choose = drill if kind == "drill" else choose_questions
        conversations, scenes = interview(scene, rng, choose), [scene]
    names = [f"{index:07d}_{number}.png" for number in range(len(scenes))]
    for name, scene_shown in zip(names, scenes, strict=True):
        (images / name).write_bytes(png_bytes(scene_shown, image_size))
    return {"id": f"{kind}_{index:07d}", "image": names, "conversations": conversations}


def interview(scene: Scene, rng: random.Random, choose: QuestionChooser) -> list[dict[str, str]]:
    """Questions about one picture, shown before the first."""
    turns = []
    for number, asked in enumerate(choose(scene, rng)):
        mark = "" if number else "<image>\n"
        turns.append({"from": ROLES["user"], "value": mark + asked.question})
        turns.append({"from": ROLES["assistant"], "value": asked.answer})
    return turns


def llava_turns(messages: Sequence[Message]) -> tuple[list[dict[str, str]], list[Scene]]:
    """A conversation with marks for its pictures, and these in order."""
    turns, scenes = [], []
    for message in messages:
        values = []
        for part in message["content"]:
            if part["type"] == "image":
                scenes.append(part["image"])
            values.append("<image>" if part["type"] == "image" else part["text"])
        turns.append({"from": ROLES[message["role"]], "value": "\n".join(values)})
    return turns, scenes


def png_bytes(scene: Scene, image_size: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(render(scene, image_size)).save(buffer, "png")
    return buffer.getvalue()


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


@app.command(
    help="Write drawn scenes as raw training data.\n\n"
    "Example: python -m train.scene_dataset -o data/scenes --num-examples 20000"
)
def main(
    output: Annotated[Path, typer.Option("-o", help="New folder")],
    num_examples: Annotated[int, typer.Option(min=1, help="Captions, and conversations")] = 20000,
    image_size: Annotated[int, typer.Option(min=16, help="Pixels per side")] = 64,
) -> None:
    with user_errors(), progress_bar("drawing") as progress:
        write_dataset(output, num_examples=num_examples, image_size=image_size, progress=progress)
    announce(f"wrote {output}")


if __name__ == "__main__":
    app()
