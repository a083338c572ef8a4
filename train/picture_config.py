"""What a tokenizer run's YAML says about its pictures: where they are and how to cut them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from train.config import RunConfig
from train.source_config import Columns, PictureTable


class ScenesConfig(RunConfig):
    """The drawn world: a new picture for every sample, drawn at the model's size."""

    kind: Literal["scenes"]


class FolderConfig(RunConfig):
    """A folder of pictures, subfolders too.

    Captions are in captions.jsonl (`{"image": NAME, "text": TEXT or [TEXTS]}`), or beside each
    picture in a .txt of the same stem.
    """

    kind: Literal["folder"]
    path: Path


class TablePicturesConfig(PictureTable):
    """A table with a picture and its captions in each row.

    `path` is a file, or several as a pattern (.parquet, .arrow, .jsonl, .json), a folder that
    save_to_disk wrote, or a name on the hub.
    """

    kind: Literal["datasets"]
    path: str


class TarPicturesConfig(RunConfig):
    """Tars in DataComp's layout: a .jpg, .png or .webp and a .txt under each name.

    `urls` are paths, URLs or commands (`pipe:...`) with brace ranges, such as
    https://example.org/{00000..00099}.tar; local paths may have wildcards.
    """

    kind: Literal["webdataset"]
    urls: Annotated[Columns, Field(min_length=1)]
    text: Columns = ()  # fields of the .json that hold captions; none: the .txt
    resampled: bool = False  # tars are drawn with replacement, not each once in a cycle
    shuffle: int = Field(default=1000, ge=0)  # samples each worker holds; 0: all in their order


PictureSourceConfig = Annotated[
    ScenesConfig | FolderConfig | TablePicturesConfig | TarPicturesConfig,
    Field(discriminator="kind"),
]


class CropConfig(RunConfig):
    """How a picture becomes a square, as in the training of CLIP models."""

    kind: Literal["random_resized", "random", "centre"] = "random_resized"
    scale: tuple[float, float] = (0.9, 1.0)  # random_resized: share of the picture's area
    ratio: tuple[float, float] = (
        3 / 4,
        4 / 3,
    )  # random_resized: width to height, before the resize
    # The others: the shorter side is resized to this times the model's size, then a square is cut.
    resize_ratio: float = Field(default=1.0, ge=1)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    # Probability of a mirrored picture. A caption may say left and right: off unless asked for.
    flip: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check_ranges(self) -> "CropConfig":
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be two shares, 0 < low <= high <= 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two ratios, 0 < low <= high, got {self.ratio}")
        return self


class TokenizerDataConfig(RunConfig):
    """What a tokenizer is trained on."""

    source: PictureSourceConfig
    crop: CropConfig = CropConfig()
