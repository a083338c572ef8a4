"""From a model's name to its folder on disk: the embedded nano, a folder, or a hub name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_session, hf_hub_download, snapshot_download

# HTTPError is that of the http library, whose name differs between releases.
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
)

from unitok.files import read_json

NANO = "nano"
RELEASED_SUFFIXES = (".pth", ".pt", ".bin")  # never loaded as they are, so never downloaded
RELEASED_PATTERNS = [f"*{suffix}" for suffix in RELEASED_SUFFIXES]
CONFIG_FILE = "config.json"
MAX_WAIT = 10  # seconds until the hub counts as out of reach


def resolve_model(
    name: str | Path,
    *,
    nano_folder: Path,
    expected_type: str | Sequence[str],
    revision: str | None = None,
) -> Path:
    """Folder that holds config.json and weights of the model called `name`.

    `nano` is the embedded model, an existing folder is taken as it is, anything else is a hub
    name, downloaded at `revision`. Its config.json must name `expected_type`, or one of several.
    Raises ValueError or FileNotFoundError with the remedy.
    """
    types = (expected_type,) if isinstance(expected_type, str) else tuple(expected_type)
    path = Path(name)
    if str(name) != NANO and not path.exists():
        if "/" not in str(name):  # no hub model of ours lacks its owner: a typing error
            raise FileNotFoundError(f"no model called {str(name)!r}; {_expected()}")
        return _download(str(name), types, revision)
    if revision is not None:
        raise ValueError(
            f"revision {revision!r} belongs to a hub model, but {name} is on this machine; leave "
            "the revision out"
        )
    if str(name) == NANO:
        path = nano_folder
        if not (path / CONFIG_FILE).is_file():
            raise FileNotFoundError(
                f"this installation lacks the embedded model nano ({path}); install it again, or "
                "name a folder or a hub model"
            )
    elif path.is_file():
        raise ValueError(f"model {name} is a file, expected a folder; {convert_hint(path)}")
    if not (path / CONFIG_FILE).is_file():
        raise FileNotFoundError(_no_config(name))
    _check_type(path / CONFIG_FILE, name, types)
    return path


def convert_hint(path: Path | str) -> str:
    """The sentence that sends the owner of released weights to the convert command."""
    return f"released weights are converted first: unitok convert {path} -o FOLDER"


def push_folder(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a saved model folder to the hub; returns the page's address."""
    api = HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    return str(api.upload_folder(folder_path=folder, repo_id=repo_id).commit_url)


def model_type(folder: Path) -> str:
    """What kind of model a resolved folder holds."""
    return str(read_json(folder / CONFIG_FILE).get("model_type"))


@contextmanager
def explain_download(name: str, *, revision: str | None, expected: str) -> Iterator[bool]:
    """Turn the hub's errors about a name into one FileNotFoundError that ends with `expected`.

    Gives the download's `local_files_only`: without a network only the cache is looked at. Errors
    of this machine, such as a full disk, stay what they are.
    """
    try:
        yield not is_hub_reachable()
    except HFValidationError as error:
        raise FileNotFoundError(f"no model called {name!r}; {expected}") from error
    except (HTTPError, LocalEntryNotFoundError) as error:
        where = f"{name!r} at revision {revision!r}" if revision else f"{name!r}"
        raise FileNotFoundError(
            f"no folder and no reachable hub model called {where} "
            f"({type(error).__name__}); {expected}"
        ) from error


def is_hub_reachable() -> bool:
    """Whether the hub answers, asked once: a download asks again and again for half a minute."""
    try:
        get_session().head(constants.ENDPOINT, timeout=MAX_WAIT)
    except (HTTPError, OfflineModeIsEnabled):
        return False
    return True


def _download(name: str, types: tuple[str, ...], revision: str | None) -> Path:
    """The folder of a hub model, whose config.json is looked at before its weights are fetched."""
    with explain_download(name, revision=revision, expected=_expected()) as local_only:
        where: Any = {"revision": revision, "local_files_only": local_only}
        try:
            config = Path(hf_hub_download(name, CONFIG_FILE, **where))
        except RemoteEntryNotFoundError as error:
            raise FileNotFoundError(_no_config(name)) from error
        _check_type(config, name, types)
        return Path(snapshot_download(name, ignore_patterns=RELEASED_PATTERNS, **where))


def _expected() -> str:
    return "expected nano, a folder with config.json, or a hub name such as OWNER/NAME"


def _no_config(name: str | Path) -> str:
    return f"model {name} has no {CONFIG_FILE}; {_expected()}; {convert_hint(name)}"


def _check_type(config: Path, name: str | Path, types: tuple[str, ...]) -> None:
    """Refuse another kind of model before any weight is read."""
    found = read_json(config).get("model_type")
    if found not in types:
        raise ValueError(
            f"{name} holds a model of type {found!r}, expected {' or '.join(map(repr, types))}; "
            f"if these are released weights, {convert_hint(name)}"
        )
