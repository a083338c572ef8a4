import json
from pathlib import Path

import pytest
from huggingface_hub.errors import HTTPError

from unitok.hub import RELEASED_PATTERNS, resolve_model


def write_model(folder: Path, model_type: str = "unitok") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def resolve(name: str | Path, nano_folder: Path = Path("nowhere"), **options: str) -> Path:
    return resolve_model(name, nano_folder=nano_folder, expected_type="unitok", **options)


def test_nano_is_the_embedded_folder(tmp_path, monkeypatch):
    # Even where a folder of that name stands.
    write_model(tmp_path / "nano")
    monkeypatch.chdir(tmp_path)
    embedded = write_model(tmp_path / "embedded")
    assert resolve("nano", embedded) == embedded


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert resolve(write_model(tmp_path)) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


def test_an_installation_without_the_embedded_model_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="this installation lacks the embedded model nano"):
        resolve("nano", tmp_path)


def test_a_file_is_answered_with_the_convert_command(tmp_path):
    path = tmp_path / "unitok_tokenizer.pth"
    path.touch()
    message = f"is a file, expected a folder; .*: unitok convert {path} -o FOLDER"
    with pytest.raises(ValueError, match=message):
        resolve(path)


def test_a_folder_of_released_files_is_answered_with_the_convert_command(tmp_path):
    (tmp_path / "unitok_tokenizer.pth").touch()
    message = f"has no config.json; expected nano, .*: unitok convert {tmp_path} -o FOLDER"
    with pytest.raises(FileNotFoundError, match=message):
        resolve(tmp_path)


@pytest.mark.parametrize("model_type", ["mini_gemini", "llama"])
def test_another_kind_of_model_is_refused(tmp_path, model_type):
    message = f"holds a model of type '{model_type}', expected 'unitok'; .*unitok convert"
    with pytest.raises(ValueError, match=message):
        resolve(write_model(tmp_path, model_type))


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "nanoo"])
def test_an_unknown_name_without_network_says_what_is_expected(name):
    message = f"no folder and no reachable hub model called '{name}' .*expected nano, a folder with"
    with pytest.raises(FileNotFoundError, match=message):
        resolve(name)


@pytest.mark.parametrize("name", ["a/b/c", "../missing", "what is this?", ""])
def test_a_name_that_cannot_be_one_says_what_is_expected(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected nano, a folder with"):
        resolve(name)


def test_a_hub_model_is_downloaded_at_its_revision_without_released_weights(tmp_path, monkeypatch):
    asked = {}

    def download(name, **options):
        asked[name] = options
        return str(write_model(tmp_path))

    monkeypatch.setattr("unitok.hub.snapshot_download", download)
    assert resolve("owner/model", revision="v2") == tmp_path
    assert asked == {"owner/model": {"revision": "v2", "ignore_patterns": RELEASED_PATTERNS}}


def test_a_hub_model_of_released_files_is_answered_with_the_convert_command(tmp_path, monkeypatch):
    monkeypatch.setattr("unitok.hub.snapshot_download", lambda name, **options: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="unitok convert owner/model -o FOLDER"):
        resolve("owner/model")


def test_a_failing_network_is_one_sentence(monkeypatch):
    def fail(name, **options):
        raise HTTPError("connection reset")

    monkeypatch.setattr("unitok.hub.snapshot_download", fail)
    message = "no reachable hub model called 'owner/model' at revision 'v2'"
    with pytest.raises(FileNotFoundError, match=message):
        resolve("owner/model", revision="v2")


def test_a_full_disk_is_not_taken_for_an_unknown_name(monkeypatch):
    def fail(name, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unitok.hub.snapshot_download", fail)
    with pytest.raises(OSError, match="No space left on device"):
        resolve("owner/model")
