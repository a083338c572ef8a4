"""Small raw data of every kind on disk, configs that describe them, and the command on them."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from typer.testing import CliRunner

from tests.mllm.tiny_pipeline import build_tiny_tokenizer
from train.config import load_config
from train.extract_codes import app
from train.extraction import ExtractConfig

SIZE = 40  # pixels of a picture's sides; the tiny tokenizer takes 32
GRID = (2, 2)
NUM_CODEBOOKS, CODEBOOK_SIZE = 4, 32  # of the tiny tokenizer
RESULTS = ("shards", "records")  # folders that an interrupted run must fill like any other


def picture(number: int) -> Image.Image:
    """A picture that no other number has."""
    image = Image.new("RGB", (SIZE, SIZE), ((53 * number) % 256, (97 * number) % 256, 90))
    image.paste((255, 255, 255), (number % 20, 5, number % 20 + 12, 17))
    return image


def png(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return file.getvalue()


def write_pictures(folder: Path, count: int) -> Path:
    """0.png, 1.png, ... in `folder`."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        picture(number).save(folder / f"{number}.png")
    return folder


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def question(name: object, images: Any, *turns: str) -> dict[str, Any]:
    """A LLaVA sample: turns of human and gpt by turns."""
    senders = ("human", "gpt")
    talk = [{"from": senders[i % 2], "value": turn} for i, turn in enumerate(turns)]
    sample: dict[str, Any] = {"id": name, "conversations": talk}
    return sample if images is None else {**sample, "image": images}


def write_llava(folder: Path, count: int = 6, *, suffix: str = ".json") -> dict[str, Any]:
    """Conversations about one picture each."""
    images = write_pictures(folder / "images", count)
    rows = [
        question(f"q{number}", f"{number}.png", "<image>\nWhat is it?", f"It is {number}.")
        for number in range(count)
    ]
    path = folder / f"llava{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        write_lines(path, rows)
    return {"kind": "llava", "name": "llava", "path": str(path), "images": str(images)}


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_tars(folder: Path, *, num_tars: int = 2, per_tar: int = 3) -> dict[str, Any]:
    for tar in range(num_tars):
        numbers = range(tar * per_tar, (tar + 1) * per_tar)
        members: dict[str, bytes] = {}
        for number in numbers:
            members[f"{number:04d}.png"] = png(number)
            members[f"{number:04d}.txt"] = f"caption {number}".encode()
            members[f"{number:04d}.json"] = json.dumps({"long": f"long {number}"}).encode()
        write_tar(folder / f"{tar:05d}.tar", members)
    return {
        "kind": "webdataset",
        "name": "tars",
        "path": str(folder / "*.tar"),
        "task": "text_to_image",
    }


def write_parquet(folder: Path, count: int = 6) -> dict[str, Any]:
    rows = [
        {"image": {"bytes": png(number), "path": None}, "text": [f"one {number}", f"two {number}"]}
        for number in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet", row_group_size=4)
    return {
        "kind": "datasets",
        "name": "pairs",
        "path": str(folder / "pairs.parquet"),
        "task": ["image_to_text", "text_to_image"],
    }


def write_saved_dataset(folder: Path, count: int = 4) -> dict[str, Any]:
    table = datasets.Dataset.from_dict(
        {"picture": [picture(n) for n in range(count)], "caption": [f"c {n}" for n in range(count)]}
    ).cast_column("picture", datasets.Image())
    table.save_to_disk(folder / "saved")
    return {
        "kind": "datasets",
        "name": "saved",
        "path": str(folder / "saved"),
        "task": "image_to_text",
        "image": "picture",
        "text": "caption",
    }


def write_official(folder: Path) -> dict[str, Any]:
    """Codes (K, L) as lists and as a JSON string; (1, K, L) with a conversation."""
    codes = [[k * 4 + position for position in range(4)] for k in range(NUM_CODEBOOKS)]
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
    rows = [
        {"id": "list", "codes": codes, "text": "a list"},
        {"id": "string", "codes": json.dumps(codes), "text": "a string"},
        {"id": "talk", "codes": [codes], "conversations": talk},
    ]
    path = write_lines(folder / "official.jsonl", rows)
    return {"kind": "official", "name": "official", "path": str(path)}


def write_text(folder: Path) -> dict[str, Any]:
    path = folder / "documents.txt"
    path.write_text("first document\n\nsecond document\n", encoding="utf-8")
    return {"kind": "text", "name": "text", "path": str(path)}


def save_tokenizer(folder: Path) -> Path:
    build_tiny_tokenizer().save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def write_config(
    folder: Path, sources: Sequence[Mapping[str, Any]], *, tokenizer: Path, **settings: Any
) -> Path:
    """A run's YAML for the tiny tokenizer, on the processor, with the output in `folder`/out."""
    values = {
        "output": str(folder / "out"),
        "tokenizer": str(tokenizer),
        "recipe": "chat",
        "batch_size": 2,
        "rows_per_shard": 4,
        "device": "cpu",
        "workers": 2,
        "sources": list(sources),
        **settings,
    }
    path = folder / "extract.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def source_config(values: Mapping[str, Any], folder: Path) -> Any:
    """One source as a run's config parses it."""
    config = load_config(ExtractConfig, write_config(folder, [values], tokenizer=folder))
    return config.sources[0]


def write_all_kinds(folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    return [
        write_llava(folder),
        write_tars(folder),
        write_parquet(folder),
        write_saved_dataset(folder),
        write_official(folder),
        write_text(folder),
    ]


def run(path: Path, *arguments: str) -> str:
    """The command's output; it must succeed."""
    result = CliRunner().invoke(app, [str(path), *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(path: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, [str(path), *arguments])
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def contents(folder: Path) -> dict[str, bytes]:
    """Every result of a run by its name; leftovers of killed processes would show up too."""
    files = [file for name in RESULTS for file in (folder / name).iterdir()]
    files += [folder / "manifest.json", folder / "bad_samples.jsonl"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
