"""Pictures with captions, by their number in the training.

A training takes the samples 0, 1, 2, ... without end. A source with N pictures gives them in one
random order after another. Which picture a number stands for depends on the run's seed alone, so
any number of processes together see what one process sees, and a resumed run goes on with the same.

A sample that cannot be used is a `BadSample`; the next candidate for the same number takes its
place, again the same one whoever asks.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple, Protocol

import datasets
import numpy as np
from PIL import Image

from eval.scenes import render
from train.picture_config import FolderConfig, TablePicturesConfig
from train.scene_data import training_example
from train.source_files import DatasetRows, Row, Table, find_files, open_table
from train.sources import BadSample, check_columns, check_folder, convert_row, table_pair
from train.tar_members import PICTURE_SUFFIXES
from unitok.files import parse_json_object

CAPTIONS_FILE = "captions.jsonl"
SCENES_PER_SEED = 10**12  # more than anybody draws


@dataclass(frozen=True)
class CaptionedPicture:
    """A sample before its picture is decoded."""

    id: str
    picture: Path | bytes | Image.Image
    captions: tuple[str, ...]  # at least one; a training chooses


class StreamPosition(NamedTuple):
    """Where a stream stands; see train/picture_streams.py."""

    turn: int = 0  # tars behind the one in which the window begins
    offset: int = 0  # samples of that tar before the window
    used: int = 0  # samples of the window that were given


class PictureSource(Protocol):
    """What every kind of source gives."""

    def candidates(self, step: int, number: int) -> Iterator[CaptionedPicture | BadSample]:
        """What may become sample `number`, without end: the first that can be used does.

        Samples are asked for in their order, those of one process alone.
        """

    def position(self, step: int) -> StreamPosition | None:
        """Where the stream of a step stands; None for a source that gives any number at once."""


class Pictures(Protocol):
    """A known number of samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CaptionedPicture | BadSample: ...


class ScenePictures:
    """The drawn world, which never ends: each seed has training scenes of its own."""

    def __init__(self, image_size: int, *, seed: int) -> None:
        self.image_size = image_size
        self.first = seed * SCENES_PER_SEED

    def candidates(self, step: int, number: int) -> Iterator[CaptionedPicture | BadSample]:
        index = self.first + number
        scene, caption = training_example(index)
        picture = Image.fromarray(render(scene, self.image_size))
        yield CaptionedPicture(f"scene {index}", picture, (caption,))

    def position(self, step: int) -> None:
        return None


class ShuffledPictures:
    """One random order of all pictures after another."""

    def __init__(self, pictures: Pictures, *, seed: int) -> None:
        self.pictures = pictures
        self.seed = seed
        self._order: tuple[int, np.ndarray] | None = None  # the turn and its order

    def candidates(self, step: int, number: int) -> Iterator[CaptionedPicture | BadSample]:
        turn, place = divmod(number, len(self.pictures))
        yield self.pictures[int(self._turn_order(turn)[place])]
        for attempt in count():
            rng = random.Random(f"{self.seed}:{number}:{attempt}")
            yield self.pictures[rng.randrange(len(self.pictures))]

    def position(self, step: int) -> None:
        return None

    def _turn_order(self, turn: int) -> np.ndarray:
        if self._order is None or self._order[0] != turn:
            rng = np.random.default_rng([self.seed, turn])
            self._order = turn, rng.permutation(len(self.pictures))
        return self._order[1]


class FolderPictures:
    """The pictures of a folder, in the order of their names."""

    def __init__(self, config: FolderConfig) -> None:
        self.folder = config.path
        captions_file = self.folder / CAPTIONS_FILE
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder of pictures at {self.folder}; check `path`")
        self._captions = _read_captions(captions_file) if captions_file.is_file() else None
        files = [path for path in self.folder.rglob("*") if is_picture(path)]
        self._names = sorted(path.relative_to(self.folder).as_posix() for path in files)
        self._check_captions()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> CaptionedPicture | BadSample:
        name = self._names[index]
        path = self.folder / name
        if self._captions is not None:
            return CaptionedPicture(name, path, self._captions[name])
        try:
            caption = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            return BadSample(name, "its .txt is no UTF-8 text")
        if not caption:
            return BadSample(name, "its .txt holds no caption")
        return CaptionedPicture(name, path, (caption,))

    def _check_captions(self) -> None:
        if not self._names:
            raise FileNotFoundError(
                f"no picture in {self.folder}; expected files that end in "
                f"{', '.join(PICTURE_SUFFIXES)}"
            )
        lost = sorted(set(self._captions or ()) - set(self._names))
        if lost:
            raise ValueError(
                f"{self.folder / CAPTIONS_FILE} names {len(lost)} pictures that are not in "
                f"{self.folder}, such as {lost[0]}; copy them there or take their lines out"
            )
        missing = [name for name in self._names if not self._has_caption(name)]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self._names)} pictures in {self.folder} have no caption, "
                f"such as {missing[0]}; write it into {Path(missing[0]).with_suffix('.txt')} or "
                f"list every picture in {CAPTIONS_FILE}"
            )

    def _has_caption(self, name: str) -> bool:
        if self._captions is not None:
            return name in self._captions
        return (self.folder / name).with_suffix(".txt").is_file()


class TablePictures:
    """The rows of a table, read one at a time in any order."""

    def __init__(self, config: TablePicturesConfig) -> None:
        self.config = config
        self._table = _open_rows(config)
        check_folder(config.images)
        check_columns(config.path, self._table, [config.image, *config.text])
        if not len(self._table):
            raise ValueError(f"{config.path} has no rows; name a table with pictures")

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> CaptionedPicture | BadSample:
        (row,) = self._table.read(index, index + 1)
        return convert_row(row, f"row {index}", self._captioned)

    def _captioned(self, name: str, row: Row) -> CaptionedPicture:
        config = self.config
        picture, captions = table_pair(
            row, image=config.image, text=config.text, images=config.images
        )
        return CaptionedPicture(name, picture, captions)


def _open_rows(config: TablePicturesConfig) -> Table:
    if not config.path.endswith(".parquet"):
        return open_table(config.path, split=config.split, subset=config.subset)
    # Single rows of Parquet files are slow: `datasets` keeps a copy that is mapped into memory.
    files = [os.fspath(file) for file in find_files(config.path)]
    return DatasetRows(datasets.Dataset.from_parquet(files))


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture; hidden files are not."""
    is_hidden = path.name.startswith(".")
    return not is_hidden and path.suffix.lower().lstrip(".") in PICTURE_SUFFIXES and path.is_file()


def _read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by name of picture; several lines may be about one."""
    captions: dict[str, tuple[str, ...]] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                row = parse_json_object(line, place)
                name, texts = _picture_name(row.get("image"), place), _texts(row.get("text"), place)
                captions[name] = (*captions.get(name, ()), *texts)
    return captions


def _picture_name(value: object, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{place}: image must be the name of a picture, got {value!r}")
    return value


def _texts(value: object, place: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    filled = tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())
    if not filled or len(filled) < len(texts):
        raise ValueError(f"{place}: text must be a caption or a list of them, got {value!r}")
    return filled
