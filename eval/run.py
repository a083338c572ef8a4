"""Several benchmarks, one results folder: a suite, from its file to a table of scores.

Started again, the command goes on where it was stopped; eval/suite.py says how.
"""

from pathlib import Path
from typing import Annotated

import typer

from eval.suite import SuiteRun, check_single_process, load_suite
from eval.suite_entries import RunSetup
from eval.suite_results import PICTURE_FILE, RESULTS_FILE, TABLE_FILE, write_results
from mllm.console import announce, quiet_libraries, say, user_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    help="Run the benchmarks of a suite one after the other. Started again, it goes on.\n\n"
    "Example: python -m eval.run eval/suites/nano.yaml --model nano -o results/nano"
)
def main(
    suite: Annotated[Path, typer.Argument(help="Such as eval/suites/official.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as data=/data/eval")
    ] = None,
    results: Annotated[Path, typer.Option("-o", help="Folder for all results")] = Path("results"),
    model: Annotated[str, typer.Option(help="nano, a folder or a hub name")] = "nano",
    num_processes: Annotated[
        int, typer.Option(min=1, help="Side by side, each on its own GPU")
    ] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many questions or prompts of each entry")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out what lacks data or weights")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16")] = None,
) -> None:
    quiet_libraries()
    with user_errors():
        check_single_process()
        chosen = load_suite(suite, overrides or ())
        setup = RunSetup(model, chosen.data, device, dtype, num_processes, limit)
        run = SuiteRun(suite.stem, chosen, results, setup)
        state = run.run(skip_missing=skip_missing, save=lambda state: write_results(state, results))
    say((results / TABLE_FILE).read_text(encoding="utf-8"))
    for problem in state.problems():
        announce(f"INCOMPLETE: {problem}")
    say(f"everything is in {results / RESULTS_FILE}; look at {results / PICTURE_FILE}")
    with user_errors():
        state.check_failures()


if __name__ == "__main__":
    app()
