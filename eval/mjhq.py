"""FID on MJHQ-30K by clean-fid's arithmetic: draw the pictures, compare them with the references.

The prompts are meta_data.json of the data set; the references are its pictures, of the size that
the numbers one compares with were measured on.
"""

from pathlib import Path
from typing import Annotated

import typer

from eval.drawing_options import Device, Drawer, with_drawer_options
from eval.inception import Inception
from eval.mjhq_fid import BENCHMARK, Comparison, read_entries, score
from eval.picture_commands import (
    Force,
    NumProcesses,
    Output,
    Partial,
    draw_benchmark,
)
from eval.picture_features import BATCH_SIZE
from eval.report import print_report
from mllm.console import quiet_libraries, say, user_errors
from mllm.devices import choose_device
from unitok.files import check_output

COMMAND = "python -m eval.mjhq"

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__
)

Metadata = Annotated[Path, typer.Argument(help="meta_data.json of MJHQ-30K")]


@app.command(
    "generate",
    help="Draw a picture of each prompt; started again, it goes on.\n\n"
    f"Example: {COMMAND} generate meta_data.json -o mjhq --model nano",
)
@with_drawer_options
def generate_command(
    metadata: Metadata,
    output: Output,
    drawer: Drawer,
    num_processes: NumProcesses = 1,
) -> None:
    quiet_libraries()
    with user_errors():
        entries = read_entries(metadata)
        prompts = [entry.prompt for entry in entries]
        paths = [output / f"{entry.stem}.jpg" for entry in entries]
        draw_benchmark(
            drawer, prompts, paths, folder=output, benchmark=BENCHMARK, num_processes=num_processes
        )


@app.command(
    "score",
    help="FID of a folder of pictures against the references; started again, it goes on.\n\n"
    f"Example: {COMMAND} score meta_data.json mjhq references -o report.json",
)
def score_command(
    metadata: Metadata,
    pictures: Annotated[Path, typer.Argument(help="Generated: CATEGORY/NAME.jpg")],
    references: Annotated[Path, typer.Argument(help="The data set's: CATEGORY/NAME.jpg")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Report to write, JSON")],
    inception: Annotated[
        Path | None, typer.Option(help="Inception weights; by default torch-fidelity's download")
    ] = None,
    per_category: Annotated[
        bool, typer.Option("--per-category", help="Also the FID in each category")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time")] = BATCH_SIZE,
    device: Device = "auto",
    partial: Partial = False,
    force: Force = False,
) -> None:
    quiet_libraries()
    with user_errors():
        check_output(output, force=force)
        extractor = Inception.from_file(inception, device=choose_device(device))
        comparison = Comparison(pictures, references, metadata, partial, per_category, batch_size)
        report = score(comparison, extractor, output=output)
    print_report(report)
    say(f"FID by {report.settings['extractor']}; everything is in {output}")


if __name__ == "__main__":
    app()
