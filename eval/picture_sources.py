"""Where pictures to measure come from: a folder, a table of `datasets`, or an .npz of arrays.

A source gives pictures by number, in an order that belongs to the data: names in alphabetical
order for folders, rows for the others. Pictures are read as the official programs do, as RGB
whatever the file says about its orientation.
"""

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.array_files import map_arrays
from eval.file_hashes import hash_lines
from eval.picture_features import find_pictures, read_rgb

NPZ_PICTURES, NPZ_LABELS = "arr_0", "arr_1"  # as the ADM evaluator's files
TABLE_FILES = ("state.json", "dataset_dict.json")  # of a folder that save_to_disk wrote
LABEL_COLUMN = "label"
NUM_COMPARED = 16  # pictures whose pixels tell two sources of the same names apart


@dataclass(frozen=True)
class PictureData:
    """Which pictures, as it is said on the command line."""

    path: str
    split: str = "validation"  # of a table that has several
    limit: int | None = None  # only so many, spread over the source


class PictureSource:
    """Pictures by number. Names are unique, usable as paths without a suffix."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Without `labels`, or without `class_names` for them, the source does not say."""
        self.names = names
        self.labels = labels
        self.class_names = class_names

    def read(self, number: int) -> Image.Image:
        """Picture `number` in RGB."""
        raise NotImplementedError


class FolderSource(PictureSource):
    """Every picture file below a folder; if all lie in subfolders, those are the classes."""

    def __init__(self, folder: Path) -> None:
        # As torch-fidelity sorts the PNGs of the same names: the order decides Inception's splits.
        self._paths = sorted(find_pictures(folder), key=lambda path: _stem(path, folder) + ".png")
        names = [_stem(path, folder) for path in self._paths]
        _check_unique(names, folder)
        if not all("/" in name for name in names):
            super().__init__(names)
            return
        folders = [name.partition("/")[0] for name in names]
        class_names = sorted(set(folders))
        numbers = {name: number for number, name in enumerate(class_names)}
        labels = [numbers[name] for name in folders]
        super().__init__(names, labels=labels, class_names=class_names)

    def read(self, number: int) -> Image.Image:
        return read_rgb(self._paths[number])


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _check_unique(names: Sequence[str], folder: Path) -> None:
    name, number = Counter(names).most_common(1)[0]
    if number > 1:
        raise ValueError(
            f"{folder} has {number} pictures called {name} in several formats; keep one of them"
        )


class ArraySource(PictureSource):
    """An .npz of uint8 pictures (N, H, W, 3), the only array or `arr_0`; labels in `arr_1`."""

    def __init__(self, path: Path) -> None:
        arrays = map_arrays(path)
        pictures = arrays.get(NPZ_PICTURES, next(iter(arrays.values())))
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(
                f"{path} must hold uint8 pictures (N, H, W, 3) as {NPZ_PICTURES}, got "
                f"{pictures.dtype} {pictures.shape}"
            )
        self._pictures = pictures
        labels = arrays.get(NPZ_LABELS)
        is_labelled = labels is not None and labels.shape == (len(pictures),)
        super().__init__(
            _row_names(len(pictures)),
            labels=labels.tolist() if labels is not None and is_labelled else None,
        )

    def read(self, number: int) -> Image.Image:
        return Image.fromarray(np.array(self._pictures[number]))


class TableSource(PictureSource):
    """A table of `datasets`: its first column of pictures, and the column `label` if it has one."""

    def __init__(self, table: Any, *, name: str) -> None:
        import datasets

        columns = [key for key, kind in table.features.items() if isinstance(kind, datasets.Image)]
        if not columns:
            raise ValueError(
                f"{name} has no column of pictures, got {', '.join(table.column_names)}; cast one "
                "to datasets.Image()"
            )
        self._name = name
        self._column = columns[0]
        self._table = table.cast_column(self._column, datasets.Image(decode=False))
        kind = table.features.get(LABEL_COLUMN)
        super().__init__(
            _row_names(len(table)),
            labels=None if kind is None else table[LABEL_COLUMN][:],
            class_names=getattr(kind, "names", None),
        )

    def read(self, number: int) -> Image.Image:
        stored = self._table[number][self._column]
        if stored is None or (stored["bytes"] is None and stored["path"] is None):
            raise ValueError(f"row {number} of {self._name} holds no picture; leave it out")
        if stored["bytes"] is None:
            return read_rgb(Path(stored["path"]))
        return read_rgb(io.BytesIO(stored["bytes"]), f"row {number} of {self._name}")


def _row_names(number: int) -> list[str]:
    return [f"{row:06d}" for row in range(number)]


class Selection(PictureSource):
    """Some pictures of a source, in its order."""

    def __init__(self, source: PictureSource, numbers: Sequence[int]) -> None:
        self._source = source
        self._numbers = numbers
        labels = source.labels
        super().__init__(
            [source.names[number] for number in numbers],
            labels=None if labels is None else [labels[number] for number in numbers],
            class_names=source.class_names,
        )

    def read(self, number: int) -> Image.Image:
        return self._source.read(self._numbers[number])


def open_source(data: PictureData) -> PictureSource:
    """The pictures of a folder, an .npz, a table's folder or files, or a hub name."""
    source = _open_whole(data)
    num_pictures = len(source.names)
    if not num_pictures:
        raise ValueError(f"{data.path} holds no picture")
    if data.limit is None or data.limit >= num_pictures:
        return source
    # Spread, because folders and tables are often sorted by class.
    numbers = [row * num_pictures // data.limit for row in range(data.limit)]
    return Selection(source, numbers)


def _open_whole(data: PictureData) -> PictureSource:
    path = Path(data.path)
    if path.suffix == ".npz":
        return ArraySource(path)
    if path.is_dir() and not any((path / name).is_file() for name in TABLE_FILES):
        return FolderSource(path)
    return TableSource(_open_table(data), name=data.path)


def _open_table(data: PictureData) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise RuntimeError("a table needs the package: pip install datasets") from error
    datasets.disable_progress_bars()
    if Path(data.path).is_dir():
        table = datasets.load_from_disk(data.path)
        return _choose_split(table, data) if isinstance(table, datasets.DatasetDict) else table
    if data.path.endswith(".parquet"):
        if not Path(data.path).is_file():
            raise FileNotFoundError(f"no table at {data.path}")
        return datasets.Dataset.from_parquet(data.path)
    if data.path.count("/") != 1 or os.path.isabs(data.path):
        raise FileNotFoundError(
            f"no pictures at {data.path}; expected a folder, an .npz, a .parquet, or a hub name "
            "such as OWNER/NAME"
        )
    try:
        return datasets.load_dataset(data.path, split=data.split)
    except (datasets.exceptions.DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"no folder and no reachable data set called {data.path} ({type(error).__name__})"
        ) from error


def _choose_split(tables: Any, data: PictureData) -> Any:
    if data.split not in tables:
        raise ValueError(
            f"{data.path} has the splits {', '.join(tables)}, got --split {data.split}"
        )
    return tables[data.split]


def describe_source(source: PictureSource, data: PictureData) -> dict[str, Any]:
    """What two runs on the same pictures have in common, for JSON.

    Rows of tables have no names of their own, so some pictures are looked at as well.
    """
    chosen = np.linspace(0, len(source.names) - 1, num=NUM_COMPARED).round().astype(int)
    pixels = [sha256(source.read(number).tobytes()).hexdigest() for number in np.unique(chosen)]
    return {
        "num_pictures": len(source.names),
        "names_sha256": hash_lines(source.names),
        "pixels_sha256": hash_lines(pixels),
        "limit": data.limit,
    }
