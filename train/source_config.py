"""How the sources of training data are described in a run's YAML, one class for each kind."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from train.config import RunConfig

PairTask = Literal["image_to_text", "text_to_image"]


def _as_tuple(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


PairTasks = Annotated[tuple[PairTask, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Columns = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class SourceConfig(RunConfig):
    """What all kinds have."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")  # also begins the names of its shards
    path: str  # a file, or several as a pattern: data/*.tar


class PictureTable(RunConfig):
    """Where pictures and captions stand in a table of the `datasets` library."""

    image: str = "image"  # column with bytes or names of files
    text: Columns = ("text",)  # columns with captions, each one or a list
    images: Path | None = None  # folder for pictures that are stored as file names
    split: str = "train"  # of a hub name or a folder of save_to_disk
    subset: str | None = None  # of a hub name


class LlavaConfig(SourceConfig):
    """LLaVA conversations: JSON or JSONL."""

    kind: Literal["llava"]
    task: Literal["chat", "image_to_text"] = "chat"  # image_to_text: the one answer is a caption
    images: Path | None = None  # folder that the names of pictures start from
    recipe: str | None = None  # None: the run's


class WebdatasetConfig(SourceConfig):
    """Tars with a picture and its captions under one name."""

    kind: Literal["webdataset"]
    task: PairTasks
    text: Columns = ()  # fields of the .json that hold captions; none: the .txt
    recipe: str | None = None


class DatasetsConfig(SourceConfig, PictureTable):
    """A table with a picture and its captions in each row."""

    kind: Literal["datasets"]
    task: PairTasks
    recipe: str | None = None


class OfficialConfig(SourceConfig):
    """Code files of the official UniTok and Liquid repositories: JSON or JSONL."""

    kind: Literal["official"]
    task: PairTasks = ("text_to_image",)  # of rows without a conversation
    codes: str = "codes"
    text: Columns = ("text",)
    conversations: str = "conversations"


class TextConfig(SourceConfig):
    """Plain documents."""

    kind: Literal["text"]
    text: str = "text"
    split: str = "train"
    subset: str | None = None


AnySourceConfig = Annotated[
    LlavaConfig | WebdatasetConfig | DatasetsConfig | OfficialConfig | TextConfig,
    Field(discriminator="kind"),
]
