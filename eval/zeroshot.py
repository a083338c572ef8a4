"""Zero-shot classification: which class's texts a picture is nearest to.

ImageNet's class names and CLIP's 80 templates come from open_clip; other pictures need a list of
their class names. Officially everything runs in bfloat16 autocast.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from eval.drawing_options import Device
from eval.feature_run import FeatureConfig, FeatureRun, extract, verdicts
from eval.file_hashes import hash_lines
from eval.picture_commands import NumProcesses, Output
from eval.picture_sources import PictureData
from eval.precision import full_precision
from eval.report import BenchmarkReport, ItemCounts, print_report, write_report
from eval.result_folder import SETTINGS_FILE
from eval.scoring import percentage
from eval.tokenizer_commands import BatchSize, Data, Limit, Split
from eval.tokenizer_peers import FeatureModel, load_feature_model, official_precision
from eval.zeroshot_classifier import (
    class_logits,
    encode_classes,
    imagenet_names,
    imagenet_templates,
    top_accuracies,
)
from mllm.console import announce, progress_bar, quiet_libraries, say, user_errors
from mllm.devices import choose_device
from unitok.files import atomic_write, read_json

COMMAND = "python -m eval.zeroshot"
BENCHMARK = "zeroshot"
NUM_OFFICIAL = 50_000  # ImageNet's validation pictures
REPORT_FILE = "report.json"
VECTORS_FILE = "classes.npz"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class ClassTexts:
    """What stands for each label, in the order of the labels."""

    names: tuple[str, ...]
    templates: tuple[str, ...]  # with {} for the name

    @classmethod
    def choose(cls, names: Path | None, templates: Path | None) -> "ClassTexts":
        """The lines of files; None: ImageNet's names, CLIP's templates."""
        chosen = imagenet_templates() if templates is None else _read_lines(templates)
        if bad := [template for template in chosen if "{}" not in template]:
            raise ValueError(f"{templates}: a template needs {{}} for the name, got {bad[0]!r}")
        return cls(imagenet_names() if names is None else _read_lines(names), chosen)

    def check(self, run: FeatureRun) -> None:
        """ValueError unless there is a name for every label of the pictures."""
        num_classes = len(run.source.class_names or ())
        if num_classes and num_classes != len(self.names):
            raise ValueError(
                f"{run.config.data.path} has {num_classes} classes, got {len(self.names)} names; "
                "name a file with one name a line, in the order of the labels (--classes)"
            )
        if run.labels_N.min() < 0 or run.labels_N.max() >= len(self.names):
            raise ValueError(
                f"the labels of {run.config.data.path} are {run.labels_N.min()} to "
                f"{run.labels_N.max()}, got {len(self.names)} class names"
            )


def _read_lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; expected one name or template a line")
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or not all(line.strip() for line in lines):
        raise ValueError(f"{path} must hold one name or template a line, none of them empty")
    return tuple(lines)


def find_vectors(run: FeatureRun, texts: ClassTexts, *, model: FeatureModel) -> Tensor:
    """Class vectors (C, E), encoded once for a folder."""
    path = run.config.output / VECTORS_FILE
    if not path.is_file():
        announce(f"encoding {len(texts.names)} classes in {len(texts.templates)} templates")
        with progress_bar("classes") as report:
            vectors = encode_texts(run, texts, model=model, progress=report)
        with atomic_write(path) as temporary:
            np.savez(temporary, vectors=vectors.float().cpu().numpy())
    with np.load(path, allow_pickle=False) as stored:
        return torch.from_numpy(stored["vectors"])


@torch.inference_mode()
def encode_texts(
    run: FeatureRun,
    texts: ClassTexts,
    *,
    model: FeatureModel,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Class vectors (C, E) in the precision of the run's features."""
    device = choose_device(run.config.device)
    precision = official_precision(device, use_autocast=run.config.use_autocast)
    with full_precision(), precision:
        return encode_classes(
            lambda batch: model.encode_text(batch).float(),
            names=texts.names,
            templates=texts.templates,
            progress=progress,
        )


def build_report(run: FeatureRun, texts: ClassTexts, *, vectors: Tensor) -> BenchmarkReport:
    """Accuracies in percent, and the first guess for every picture."""
    logits = class_logits(torch.from_numpy(run.features()), vectors)
    accuracies = top_accuracies(logits, torch.from_numpy(run.labels_N))
    num_pictures = accuracies.num_items
    is_imagenet = texts == ClassTexts(imagenet_names(), imagenet_templates())
    is_official = is_imagenet and num_pictures == NUM_OFFICIAL
    notes = []
    if not is_official:
        notes.append(
            f"{num_pictures} pictures of {len(texts.names)} classes: published scores are of "
            f"ImageNet's {NUM_OFFICIAL} validation pictures and do not compare"
        )
    return BenchmarkReport(
        benchmark=BENCHMARK if is_official else f"{BENCHMARK}-own",
        metrics={
            "top1": percentage(accuracies.num_top1, num_pictures),
            "top5": percentage(accuracies.num_top5, num_pictures),
        },
        counts=ItemCounts(num_pictures),
        items=verdicts(run, logits.argmax(dim=1).tolist()),
        settings=read_json(run.config.output / SETTINGS_FILE),
        notes=tuple(notes),
    )


@app.command(
    help="Classify pictures by texts. Started again, it goes on. Under torchrun every process does "
    "its share.\n\n"
    f"Example: {COMMAND} imagenet/val -o results/zs --model clip:ViT-L-14@openai"
)
def main(
    data: Data,
    output: Output,
    model: Annotated[str, typer.Option(help="unitok:NAME or clip:NAME@WEIGHTS")] = "unitok:nano",
    split: Split = "validation",
    limit: Limit = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class names, one a line, by label; by default ImageNet's")
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="Texts with {} for the name, one a line; by default CLIP's")
    ] = None,
    autocast: Annotated[bool, typer.Option(help="bfloat16 autocast, as officially")] = True,
    batch_size: BatchSize = 32,
    num_processes: NumProcesses = 1,
    device: Device = "auto",
) -> None:
    quiet_libraries()
    with user_errors():
        texts = ClassTexts.choose(classes, templates)
        hashes = {
            "classes_sha256": hash_lines(texts.names),
            "templates_sha256": hash_lines(texts.templates),
        }
        config = FeatureConfig(
            model,
            PictureData(data, split, limit),
            output,
            kind="text_aligned",
            batch_size=batch_size,
            device=device,
            use_autocast=autocast,
            more_settings=hashes,
        )
        run = FeatureRun(config)
        texts.check(run)
        if not extract(run, num_processes=num_processes):
            return
        loaded = load_feature_model(model, device=choose_device(device))
        report = build_report(run, texts, vectors=find_vectors(run, texts, model=loaded))
        write_report(report, output / REPORT_FILE)
    print_report(report)
    say(f"everything is in {output}")


if __name__ == "__main__":
    app()
