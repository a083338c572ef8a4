"""Encode the pictures of training data once: sources in, code shards out.

Started again, the command goes on where it was; train/extraction.py says how.
"""

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from mllm.console import announce, progress_bar, quiet_libraries, user_errors
from mllm.image_tokenizer import load_tokenizer
from mllm.pictures import check_png
from mllm.share import Share, process_device
from train.code_preview import draw_preview
from train.code_shards import BAD_SAMPLES_FILE, MANIFEST_FILE, CodeShards
from train.config import load_config, save_config
from train.extraction import ExtractConfig, Extraction
from unitok.files import read_json

CONFIG_COPY = "config.yaml"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def extract(config: ExtractConfig, share: Share) -> Extraction | None:
    """Do this process's share; None when a signal stopped it."""
    announce(f"loading tokenizer {config.tokenizer}")
    device = process_device(config.device)
    tokenizer = load_tokenizer(config.tokenizer, device=device, dtype=config.dtype)
    extraction = Extraction(config, tokenizer, share=share)
    save_config(config, config.output / CONFIG_COPY)
    with progress_bar("samples") if share.index == 0 else nullcontext(_no_report) as report:
        return extraction if extraction.run(report=report) else None


def _no_report(done: int, total: int) -> None:
    """Only the first process shows progress."""


def look_at(extraction: Extraction, *, preview: Path | None, verify: bool) -> None:
    """What a person asked to see of a finished folder."""
    fingerprint = extraction.origin.tokenizer_fingerprint
    shards = CodeShards(extraction.folder, tokenizer_fingerprint=fingerprint)
    if verify:
        shards.verify()
        announce(f"all {len(shards.shards)} shards are as they were written")
    if preview is not None:
        draw_preview(shards, extraction.tokenizer, preview)
        announce(f"drew {preview}")


@app.command(
    help="Encode the pictures of training data into code shards. Started again, it goes on.\n\n"
    "Example: python -m train.extract_codes pairs.yaml limit=64 output=data/look "
    "--preview look.png"
)
def main(
    config: Annotated[Path, typer.Argument(help="YAML that names sources, tokenizer and output")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings, such as batch_size=32")
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(help="Then draw some rows of the finished folder as a PNG")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Then check every shard")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the preview")] = False,
) -> None:
    quiet_libraries()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with user_errors():
        if preview is not None:
            check_png(preview, force=force)
        share = Share.from_environment()
        extraction = extract(load_config(ExtractConfig, config, overrides or ()), share)
        if extraction is None:
            announce("stopped between two shards; the same command goes on")
            return
        if not extraction.finish():
            announce(f"this process is done; others have {extraction.num_missing()} shards to do")
            return
        check_usable(extraction.folder)
        announce(summary(extraction.folder))
        if share.index == 0:
            look_at(extraction, preview=preview, verify=verify)


def check_usable(folder: Path) -> None:
    """Raise ValueError for a finished folder without a row: nothing can be trained on it."""
    manifest = read_json(folder / MANIFEST_FILE)
    if manifest["num_rows"]:
        return
    path = folder / BAD_SAMPLES_FILE
    bad_samples = path.read_text(encoding="utf-8").splitlines()
    reason = (
        f", the first because of: {json.loads(bad_samples[0])['reason']}" if bad_samples else ""
    )
    raise ValueError(
        f"none of {len(bad_samples)} samples could be used{reason}; correct the sources, delete "
        f"{folder} and start again"
    )


def summary(folder: Path) -> str:
    """What a finished folder holds, in one line."""
    manifest = read_json(folder / MANIFEST_FILE)
    tasks = ", ".join(f"{count} {task}" for task, count in manifest["rows_per_task"].items())
    bad = manifest["num_bad_samples"]
    reasons = f"; {bad} bad samples, see {folder / BAD_SAMPLES_FILE}" if bad else ""
    return f"{folder} is complete: {manifest['num_rows']} rows ({tasks or 'none'}){reasons}"


if __name__ == "__main__":
    app()
