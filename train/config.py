"""Run folders of training: a new one, and one to go on with."""

from pathlib import Path

from unitok.run_config import Config, RunConfig, load_config, save_config

__all__ = [
    "CONFIG_COPY",
    "RunConfig",
    "begin_run",
    "load_config",
    "prepare_run_folder",
    "save_config",
    "saved_settings",
]

CONFIG_COPY = "config.yaml"  # in a run folder


def begin_run(config: RunConfig, folder: Path) -> None:
    """Make a new run folder with a copy of the resolved settings."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; add --resume to go on, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / CONFIG_COPY)


def saved_settings(cls: type[Config], folder: Path) -> Config:
    """The settings of the run in `folder`, to go on with it."""
    saved = folder / CONFIG_COPY
    if not saved.is_file():
        raise FileNotFoundError(f"no run to resume in {folder}; start it without --resume")
    return load_config(cls, saved)


def prepare_run_folder(config: RunConfig, folder: Path, *, resume: bool) -> None:
    """A new folder with the settings, or the one of these very settings."""
    if not resume:
        begin_run(config, folder)
    elif saved_settings(type(config), folder) != config:
        raise ValueError(
            f"the settings differ from those in {folder / CONFIG_COPY}; resume with these, or "
            "start a new run in another folder"
        )
