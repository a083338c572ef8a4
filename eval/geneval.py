"""GenEval, from prompts to scores: draw the pictures, judge them, compare detectors.

Prompts are the official file, a file of one's own, or `drawn`: held-out drawn scenes, on which the
embedded model is judged by the same code and rules, with the inspector as the detector.
"""

from pathlib import Path
from typing import Annotated

import typer

from eval.drawing_options import Device, Drawer, with_drawer_options
from eval.geneval_agreement import agreement_table, compare_judges, difference_lines, judge_lines
from eval.geneval_judge import JudgeChoice
from eval.geneval_pictures import generate
from eval.geneval_prompts import (
    DRAWN_SCENES,
    NUM_OFFICIAL_IMAGES,
    PromptSet,
    drawn_prompts,
    read_prompts,
)
from eval.geneval_scoring import PAGE_FILE, REPORT_FILE, ScoringRun, score
from eval.picture_commands import (
    Force,
    NumProcesses,
    Output,
    Partial,
)
from eval.report import BenchmarkReport, print_report
from mllm.console import announce, out, quiet_libraries, say, user_errors
from unitok.files import check_output, write_json

COMMAND = "python -m eval.geneval"
PICTURES_FOLDER = "images"  # of a run, beside its results

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__
)

Prompts = Annotated[
    str, typer.Argument(help=f"evaluation_metadata.jsonl, a file like it, or {DRAWN_SCENES}")
]
PerTask = Annotated[int, typer.Option(min=1, help=f"With {DRAWN_SCENES}: prompts of each task")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only so many prompts, of all tasks in turn; labelled so")
]
NumImages = Annotated[int, typer.Option("--num-images", "-n", min=1, help="Pictures per prompt")]
DetectorName = Annotated[
    str | None, typer.Option("--detector", help="inspector, a converted folder or a hub name")
]
DetectionsFile = Annotated[
    Path | None, typer.Option("--detections", help="Judge what is stored here instead")
]
Colors = Annotated[
    str | None, typer.Option(help="Who names colours: clip, or inspector for drawn scenes")
]
Options = Annotated[
    list[str] | None, typer.Option("--options", help="Official key=value; may be repeated")
]


@app.command(
    "generate",
    help="Draw the pictures of all prompts; started again, it goes on.\n\n"
    f"Example: {COMMAND} generate evaluation_metadata.jsonl -o images --model nano",
)
@with_drawer_options
def generate_command(
    prompts: Prompts,
    output: Output,
    drawer: Drawer,
    num_images: NumImages = NUM_OFFICIAL_IMAGES,
    per_task: PerTask = 10,
    limit: Limit = None,
    num_processes: NumProcesses = 1,
) -> None:
    quiet_libraries()
    with user_errors():
        chosen = find_prompts(prompts, per_task=per_task, limit=limit)
        generate(chosen, output, drawer=drawer, num_images=num_images, num_processes=num_processes)


@app.command(
    "score",
    help="Judge the pictures in a folder; started again, it goes on.\n\n"
    f"Example: {COMMAND} score images -o results --detector mask2former",
)
def score_command(
    images: Annotated[Path, typer.Argument(help="Folder with 00000/samples/0000.png, ...")],
    output: Output,
    detector: DetectorName = None,
    detections: DetectionsFile = None,
    colors: Colors = None,
    options: Options = None,
    partial: Partial = False,
    num_images: Annotated[
        int | None, typer.Option(min=1, help="Pictures per prompt, if drawn elsewhere")
    ] = None,
    device: Device = "auto",
    num_processes: NumProcesses = 1,
    force: Force = False,
) -> None:
    quiet_libraries()
    with user_errors():
        choice = JudgeChoice(detector, detections, colors, tuple(options or ()), device)
        run = ScoringRun(images, output, num_images=num_images, is_partial=partial, force=force)
        tell_scores(score(run, choice, num_processes=num_processes), output)


@app.command(
    "run",
    help="Draw the pictures and judge them; started again, it goes on.\n\n"
    f"Example: {COMMAND} run {DRAWN_SCENES} -o scenes --detector inspector",
)
@with_drawer_options
def run_command(
    prompts: Prompts,
    output: Output,
    drawer: Drawer,
    detector: DetectorName = None,
    colors: Colors = None,
    options: Options = None,
    num_images: NumImages = NUM_OFFICIAL_IMAGES,
    per_task: PerTask = 10,
    limit: Limit = None,
    num_processes: NumProcesses = 1,
    force: Force = False,
) -> None:
    quiet_libraries()
    with user_errors():
        choice = JudgeChoice(detector, None, colors, tuple(options or ()), drawer.device)
        run = ScoringRun(output / PICTURES_FOLDER, output, force=force)
        run.check()
        chosen = find_prompts(prompts, per_task=per_task, limit=limit)
        generate(
            chosen, run.images, drawer=drawer, num_images=num_images, num_processes=num_processes
        )
        tell_scores(score(run, choice, num_processes=num_processes), output)


@app.command(
    "compare",
    help="Say how far two files of detections agree on the pictures of one folder.\n\n"
    f"Example: {COMMAND} compare ours/detections.jsonl official.jsonl --images images",
)
def compare_command(
    first: Annotated[Path, typer.Argument(help="Detections of one detector")],
    second: Annotated[Path, typer.Argument(help="Detections of another")],
    images: Annotated[Path, typer.Option(help="Folder with 00000/samples/0000.png, ...")],
    colors: Colors = None,
    options: Options = None,
    device: Device = "auto",
    output: Annotated[Path | None, typer.Option("-o", help="Also store it as JSON")] = None,
    force: Force = False,
) -> None:
    quiet_libraries()
    with user_errors():
        if output is not None:
            check_output(output, force=force)
        judges = [
            JudgeChoice(None, path, colors, tuple(options or ()), device).load()
            for path in (first, second)
        ]
        agreement = compare_judges(images, *judges)
        if output is not None:
            write_json(agreement.to_dict(), output)
    for line in [*difference_lines(agreement), *judge_lines(agreement)]:
        say(line)
    out.print(agreement_table(agreement))


@app.command(
    "convert-detector",
    help="Convert the official detector's checkpoint.\n\n"
    f"Example: {COMMAND} convert-detector mask2former_swin-s.pth -o mask2former",
)
def convert_detector_command(
    checkpoint: Annotated[Path, typer.Argument(help="The official mmdet checkpoint")],
    output: Output,
    force: Force = False,
) -> None:
    quiet_libraries()
    from eval.detector_convert import convert_detector

    with user_errors():
        convert_detector(checkpoint, output, force=force)
    say(f"wrote {output}; use it with: {COMMAND} score IMAGES -o RESULTS --detector {output}")


def find_prompts(source: str, *, per_task: int, limit: int | None = None) -> PromptSet:
    """The prompts that a user names; says so when they are not the official ones."""
    if source == DRAWN_SCENES:
        return drawn_prompts(per_task).limit(limit)
    prompts = read_prompts(Path(source))
    if prompts.name != "official":
        announce(f"{source} is not GenEval's official prompt file: no published score compares")
    return prompts.limit(limit)


def tell_scores(report: BenchmarkReport, folder: Path) -> None:
    """Scores, who judged, and where to look."""
    print_report(report)
    settings = report.settings
    say(
        f"{report.benchmark} overall {report.metrics['overall']:.5f}, judged by "
        f"{settings['detector']} ({settings['detector_fingerprint']})"
    )
    say(f"look at {folder / PAGE_FILE}; everything is in {folder / REPORT_FILE}")


if __name__ == "__main__":
    app()
