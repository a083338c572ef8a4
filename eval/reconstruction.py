"""How well a tokenizer gives pictures back: rFID, Inception Score, PSNR, SSIM, LPIPS, codebooks.

The model may be ours or a peer: eval/tokenizer_peers.py says how each is written.
"""

from pathlib import Path
from typing import Annotated

import typer

from eval.picture_commands import Device, NumProcesses, Output
from eval.picture_sources import PictureData
from eval.processes import own_share, run_with_bar
from eval.reconstruction_report import GRID_FILE, finish
from eval.reconstruction_run import ReconstructionConfig, ReconstructionRun, ReconstructionTask
from eval.report import print_report
from mllm.console import announce, quiet_libraries, say, user_errors

COMMAND = "python -m eval.reconstruction"

Data = Annotated[
    str, typer.Argument(help="Folder of pictures, .npz, .parquet, saved table or hub name")
]
Split = Annotated[str, typer.Option(help="Of a table that has several")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only so many pictures, spread over the source")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures at a time")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def reconstruct(config: ReconstructionConfig, *, num_processes: int) -> ReconstructionRun:
    """Measure what this command has to, in one process or in several."""
    run = ReconstructionRun(config)
    share = own_share(num_processes)
    num_done, num_items = run.parts.count(share)
    announce(f"reconstructing {num_items - num_done} of {num_items} pictures with {config.model}")
    run_with_bar(
        ReconstructionTask(config),
        "reconstructing",
        num_done=num_done,
        num_items=num_items,
        num_processes=num_processes,
        share=share,
    )
    return run


@app.command(
    help="Reconstruct pictures and measure the result. Started again, it goes on. Under torchrun "
    "every process does its share.\n\n"
    f"Example: {COMMAND} imagenet256 -o results/nano-rec --model unitok:nano"
)
def main(
    data: Data,
    output: Output,
    model: Annotated[str, typer.Option(help="unitok:NAME or sd-vae:NAME")] = "unitok:nano",
    split: Split = "validation",
    limit: Limit = None,
    recipe: Annotated[
        str, typer.Option(help="rfid crops without a resize; also reconstruction, zero_shot, chat")
    ] = "rfid",
    image_size: Annotated[
        int | None, typer.Option(min=16, help="Pixels per side; by default the model's own")
    ] = None,
    rfid: Annotated[bool, typer.Option(help="rFID and Inception Score; need --inception")] = True,
    lpips: Annotated[bool, typer.Option(help="LPIPS; needs --alexnet")] = True,
    inception: Annotated[
        Path | None, typer.Option(help="Inception's weights; by default torch-fidelity's download")
    ] = None,
    alexnet: Annotated[
        Path | None, typer.Option(help="AlexNet's weights; by default torchvision's download")
    ] = None,
    batch_size: BatchSize = 16,
    num_processes: NumProcesses = 1,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="float32, as officially, or bfloat16")] = "float32",
) -> None:
    quiet_libraries()
    with user_errors():
        config = ReconstructionConfig(
            model, PictureData(data, split, limit), output, recipe, image_size, batch_size,
            device, dtype, rfid, lpips, inception, alexnet,
        )  # fmt: skip
        run = reconstruct(config, num_processes=num_processes)
        num_done, num_items = run.parts.count()
        if num_done < num_items:
            announce(f"this process is done; others have {num_items - num_done} pictures to do")
            return
        report = finish(run)
    print_report(report)
    say(f"everything is in {output}; {GRID_FILE} shows the best, median and worst pictures")


if __name__ == "__main__":
    app()
