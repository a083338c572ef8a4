import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
)

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


def test_an_unknown_name_without_network_says_what_is_expected():
    name = "no-such-owner/no-such-model"
    message = f"no folder and no reachable hub model called '{name}' .*expected nano, a folder with"
    with pytest.raises(FileNotFoundError, match=message):
        resolve(name)


def test_a_name_without_an_owner_is_not_asked_for_on_the_hub(monkeypatch):
    monkeypatch.setattr("unitok.hub.hf_hub_download", lambda *args, **kwargs: pytest.fail("asked"))
    with pytest.raises(FileNotFoundError, match="no model called 'nanno'; expected nano, a folder"):
        resolve("nanno")


@pytest.mark.parametrize("name", ["a/b/c", "../missing", "what is this?", ""])
def test_a_name_that_cannot_be_one_says_what_is_expected(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected nano, a folder with"):
        resolve(name)


def test_a_hub_model_is_downloaded_at_its_revision_without_released_weights(tmp_path, monkeypatch):
    asked = {}

    def download(name, **options):
        asked[name] = options
        return str(tmp_path)

    monkeypatch.setattr("unitok.hub.hf_hub_download", fetch_config(tmp_path))
    monkeypatch.setattr("unitok.hub.snapshot_download", download)
    assert resolve("owner/model", revision="v2") == tmp_path
    asked["owner/model"].pop("local_files_only")
    assert asked == {"owner/model": {"revision": "v2", "ignore_patterns": RELEASED_PATTERNS}}


def fetch_config(folder: Path, model_type: str = "unitok"):
    return lambda name, file, **options: str(write_model(folder, model_type) / file)


def refuse_weights(name, **options):
    raise AssertionError("weights were downloaded")


def test_a_hub_model_of_released_files_is_answered_before_they_are_downloaded(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("unitok.hub.snapshot_download", refuse_weights)
    monkeypatch.setattr("unitok.hub.hf_hub_download", fetch_config(tmp_path, "mini_gemini"))
    message = "owner/model holds a model of type 'mini_gemini', .*unitok convert owner/model -o"
    with pytest.raises(ValueError, match=message):
        resolve("owner/model")


def test_a_hub_model_without_a_config_is_answered_with_the_convert_command(monkeypatch):
    def fail(name, file, **options):
        response: Any = SimpleNamespace(headers={}, request=None)
        raise RemoteEntryNotFoundError("no such file", response=response)

    monkeypatch.setattr("unitok.hub.snapshot_download", refuse_weights)
    monkeypatch.setattr("unitok.hub.hf_hub_download", fail)
    message = r"owner/model has no config\.json; .*unitok convert owner/model -o FOLDER"
    with pytest.raises(FileNotFoundError, match=message):
        resolve("owner/model")


def test_one_of_several_types_is_taken(tmp_path):
    folder = write_model(tmp_path, "b")
    types = ("a", "b")
    assert resolve_model(folder, nano_folder=tmp_path, expected_type=types) == folder
    write_model(tmp_path, "c")
    with pytest.raises(ValueError, match="of type 'c', expected 'a' or 'b'"):
        resolve_model(folder, nano_folder=tmp_path, expected_type=types)


def test_a_revision_of_a_folder_is_refused_instead_of_ignored(tmp_path):
    with pytest.raises(ValueError, match="revision 'v2' belongs to a hub model"):
        resolve(write_model(tmp_path), revision="v2")
    with pytest.raises(ValueError, match="revision 'v2' belongs to a hub model"):
        resolve("nano", tmp_path, revision="v2")


def test_a_failing_network_is_one_sentence(monkeypatch):
    def fail(name, file, **options):
        raise HTTPError("connection reset")

    monkeypatch.setattr("unitok.hub.hf_hub_download", fail)
    message = "no reachable hub model called 'owner/model' at revision 'v2'"
    with pytest.raises(FileNotFoundError, match=message):
        resolve("owner/model", revision="v2")


@pytest.mark.parametrize("error", [HTTPError("no such host"), OfflineModeIsEnabled("offline")])
def test_a_hub_out_of_reach_is_asked_once_and_only_the_cache_is_looked_at(monkeypatch, error):
    asked = []

    class Session:
        def head(self, address, *, timeout):
            asked.append((address, timeout))
            raise error

    def look(name, file, **options):
        asked.append((name, options["local_files_only"]))
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr("unitok.hub.get_session", Session)
    monkeypatch.setattr("unitok.hub.hf_hub_download", look)
    with pytest.raises(FileNotFoundError, match="no reachable hub model called 'owner/model'"):
        resolve("owner/model")
    assert asked == [(constants.ENDPOINT, 10), ("owner/model", True)]


def test_a_hub_that_answers_is_downloaded_from(tmp_path, monkeypatch):
    class Session:
        def head(self, address, *, timeout):
            return SimpleNamespace(status_code=500)

    asked = {}

    def download(name, **options):
        asked.update(options)
        return str(tmp_path)

    monkeypatch.setattr("unitok.hub.get_session", Session)
    monkeypatch.setattr("unitok.hub.hf_hub_download", fetch_config(tmp_path))
    monkeypatch.setattr("unitok.hub.snapshot_download", download)
    assert resolve("owner/model") == tmp_path
    assert asked["local_files_only"] is False


def test_a_full_disk_is_not_taken_for_an_unknown_name(monkeypatch):
    def fail(name, file, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unitok.hub.hf_hub_download", fail)
    with pytest.raises(OSError, match="No space left on device"):
        resolve("owner/model")
