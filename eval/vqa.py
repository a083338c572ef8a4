"""One understanding benchmark, from its question file to its score.

Started again, the command asks only what has no answer yet; eval/asking.py says how.
"""

from pathlib import Path
from typing import Annotated

import typer

from eval.asking import AskConfig, Asking, AskingTask
from eval.benchmarks import benchmark_names
from eval.processes import own_share, run_with_bar
from eval.report import print_report
from mllm.console import announce, quiet_libraries, user_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def ask(asking: Asking, num_processes: int) -> None:
    """Ask what this command has to ask, in one process or in several."""
    share = own_share(num_processes)
    run_with_bar(
        AskingTask(asking.config),
        "questions",
        num_done=0,
        num_items=asking.num_missing(share),
        num_processes=num_processes,
        share=share,
    )


@app.command(
    help="Ask a model the questions of a benchmark and score its answers. Started again, it goes "
    "on. Under torchrun every process asks its share.\n\n"
    "Example: python -m eval.vqa --benchmark scenes --model nano -o results/scenes"
)
def main(
    benchmark: Annotated[str, typer.Option(help=f"One of {', '.join(benchmark_names())}")],
    results: Annotated[Path, typer.Option("-o", help="Folder for answers and report")],
    data: Annotated[Path | None, typer.Option(help="Folder of the benchmark's files")] = None,
    model: Annotated[str, typer.Option(help="nano, a folder or a hub name")] = "nano",
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only so many questions")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at a time")] = 16,
    num_processes: Annotated[int, typer.Option(min=1, help="Processes that ask")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Of the benchmark, as NAME=VALUE; several are allowed")
    ] = None,
) -> None:
    quiet_libraries()
    with user_errors():
        config = AskConfig(
            benchmark,
            results,
            data=data,
            model=model,
            limit=limit,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            options=tuple(option or ()),
        )
        asking = Asking(config)
        asking.rehearse()
        ask(asking, num_processes)
        if missing := asking.num_missing():
            announce(f"this process is done; others have {missing} questions to ask")
            return
        print_report(asking.finish())


if __name__ == "__main__":
    app()
