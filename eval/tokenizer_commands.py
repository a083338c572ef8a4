"""Options that the commands about tokenizers have in common."""

from typing import Annotated

import typer

Data = Annotated[
    str, typer.Argument(help="Folder of pictures, .npz, .parquet, saved table or hub name")
]
Split = Annotated[str, typer.Option(help="Of a table that has several")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only so many pictures, spread over the source")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures at a time")]
