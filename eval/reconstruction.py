"""How well a tokenizer gives pictures back: rFID, Inception Score, PSNR, SSIM, LPIPS, codebooks.

The model may be ours or a peer: eval/tokenizer_peers.py says how each is written.
"""

from pathlib import Path
from typing import Annotated

import typer

from eval.batch_parts import fill_parts
from eval.drawing_options import Device
from eval.picture_commands import NumProcesses, Output
from eval.picture_sources import PictureData
from eval.reconstruction_report import GRID_FILE, finish
from eval.reconstruction_run import ReconstructionConfig, ReconstructionRun, ReconstructionTask
from eval.report import print_report
from eval.tokenizer_commands import BatchSize, Data, Limit, Split
from mllm.console import quiet_libraries, say, user_errors

COMMAND = "python -m eval.reconstruction"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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
            model,
            PictureData(data, split, limit),
            output,
            recipe=recipe,
            image_size=image_size,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            use_rfid=rfid,
            use_lpips=lpips,
            inception=inception,
            alexnet=alexnet,
        )
        run, task = ReconstructionRun(config), ReconstructionTask(config)
        if not fill_parts(run.parts, task, "reconstructing", num_processes=num_processes):
            return
        report = finish(run)
    print_report(report)
    say(f"everything is in {output}; {GRID_FILE} shows the best, median and worst pictures")


if __name__ == "__main__":
    app()
