"""Folders of results: never mixed from several settings, whoever begins them."""

import json
from pathlib import Path

import pytest

from eval.result_folder import begin_folder, find_difference, read_settings


def test_a_folder_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pictures"
    settings = {"seed": 0, "sampling": {"temperature": 1.0}, "places": (1, 2)}
    begin_folder(folder, settings)
    assert json.loads((folder / "settings.json").read_text())["seed"] == 0
    begin_folder(folder, settings)
    with pytest.raises(ValueError, match="was begun with seed 0, got 1; give the same settings"):
        begin_folder(folder, {**settings, "seed": 1})
    with pytest.raises(ValueError, match=r"begun with dtype None, got float32; .*or pass --force"):
        begin_folder(folder, {**settings, "dtype": "float32"}, remedy="pass --force")
    with pytest.raises(ValueError, match="was begun with seed 0, got None"):
        begin_folder(folder, {"sampling": {"temperature": 1.0}, "places": (1, 2)})
    assert json.loads((folder / "settings.json").read_text())["seed"] == 0


def test_remarks_are_stored_and_may_change(tmp_path: Path) -> None:
    begin_folder(tmp_path, {"seed": 0}, file="generation.json", remarks={"model": "a"})
    begin_folder(tmp_path, {"seed": 0}, file="generation.json", remarks={"model": "b"})
    assert read_settings(tmp_path, file="generation.json") == {"model": "a", "seed": 0}
    assert read_settings(tmp_path) is None


def test_the_first_difference_has_a_name() -> None:
    assert find_difference({"a": 1, "b": [2]}, {"a": 1, "b": (2,)}) is None
    assert find_difference({"a": 1, "b": 2}, {"b": 3, "a": 1}) == "b"


def test_a_folder_of_unknown_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".0123.json").touch()
    (tmp_path / "old.png").touch()
    with pytest.raises(FileExistsError, match=r"holds files but no settings\.json that says how"):
        begin_folder(tmp_path, {})
    (tmp_path / "old.png").unlink()
    begin_folder(tmp_path, {})


def test_a_folder_that_another_process_begins_at_the_same_time_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"limit": None, "model": "tiny"}
    list_folder = Path.iterdir

    def list_after_another_began(path: Path):
        (path / "settings.json").write_text(json.dumps(settings))
        (path / "parts").mkdir()
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", list_after_another_began)
    begin_folder(tmp_path / "out", settings)
    assert json.loads((tmp_path / "out" / "settings.json").read_text()) == settings
