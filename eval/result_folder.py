"""Folders in which results grow: begun with settings, and gone on with by the same ones alone.

What decides the results is stored beside them. A folder that was begun with other settings is
refused, because nobody could tell its results apart later.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unitok.files import read_json, write_json

SETTINGS_FILE = "settings.json"
NO_REMARKS: Mapping[str, Any] = MappingProxyType({})


def begin_folder(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    file: str = SETTINGS_FILE,
    remarks: Mapping[str, Any] = NO_REMARKS,
    remedy: str = "name a new folder",
) -> None:
    """Begin `folder` with `settings`, or go on in it; several processes may do so at a time.

    `remarks` are stored too, but another run may have others. Raises ValueError, which ends with
    the `remedy`, for a folder of other settings, and FileExistsError for one of other files.
    """
    path = folder / file
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        _refuse_other_files(folder, file)
        write_json({**remarks, **settings}, path)
    stored = read_json(path)
    if name := find_difference(stored, settings, remarks=remarks):
        raise ValueError(
            f"{folder} was begun with {name} {stored.get(name)}, got {settings.get(name)}; give "
            f"the same settings to go on, or {remedy}"
        )


def find_difference(
    stored: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    remarks: Mapping[str, Any] = NO_REMARKS,
) -> str | None:
    """The first setting of which a folder has another value; None if all are the same."""
    wanted = json.loads(json.dumps(settings))  # as the stored ones: lists for tuples
    names = [name for name in {**wanted, **stored} if name not in remarks]
    return next((name for name in names if stored.get(name) != wanted.get(name)), None)


def read_settings(folder: Path, *, file: str = SETTINGS_FILE) -> dict[str, Any] | None:
    """What a folder was begun with; None for one that nobody began."""
    path = folder / file
    return read_json(path) if path.is_file() else None


def _refuse_other_files(folder: Path, file: str) -> None:
    # Hidden files are what a process that starts at the same moment is about to rename. What one
    # has just begun is no other's: it writes the settings first.
    has_files = any(not path.name.startswith(".") for path in folder.iterdir())
    if has_files and not (folder / file).is_file():
        raise FileExistsError(
            f"{folder} holds files but no {file} that says how they were made; name a new folder, "
            "or one begun by this command"
        )
