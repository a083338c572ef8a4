"""Linear probe: how well a linear classifier on frozen features tells classes apart."""

from typing import Annotated, Any

import torch
import typer

from eval.drawing_options import Device
from eval.feature_run import FeatureConfig, FeatureRun, extract, verdicts
from eval.logistic_regression import Sweep, fit_best
from eval.picture_commands import NumProcesses, Output
from eval.picture_sources import PictureData
from eval.report import BenchmarkReport, ItemCounts, print_report, write_report
from eval.result_folder import SETTINGS_FILE
from eval.scoring import accuracy
from eval.tokenizer_commands import BatchSize, Limit, Split
from mllm.console import announce, quiet_libraries, say, user_errors
from mllm.devices import choose_device
from unitok.files import read_json

COMMAND = "python -m eval.linear_probe"
BENCHMARK = "linear_probe"
NUM_OFFICIAL = (1_281_167, 50_000)  # ImageNet's training and validation pictures
REPORT_FILE = "report.json"
TRAIN_FOLDER, TEST_FOLDER = "train", "test"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def check_classes(train: FeatureRun, test: FeatureRun) -> int:
    """How many classes there are; ValueError if the two sides name them differently."""
    if train.source.class_names != test.source.class_names:
        raise ValueError(
            f"{train.config.data.path} and {test.config.data.path} have other classes; both need "
            "the same ones, or their labels mean different things"
        )
    for side in (train, test):
        if unlabelled := int((side.labels_N < 0).sum()):
            raise ValueError(
                f"{unlabelled} pictures of {side.config.data.path} have a label below 0; a hidden "
                "test split has no labels, name another with --split"
            )
    return int(max(train.labels_N.max(), test.labels_N.max())) + 1


def learn(train: FeatureRun, *, num_classes: int, device: torch.device) -> Sweep:
    """A classifier on the features of the training pictures."""
    features = torch.from_numpy(train.features()).to(device)
    labels = torch.from_numpy(train.labels_N).to(device)
    announce(f"learning {num_classes} classes from {len(features)} pictures")
    return fit_best(features, labels, num_classes=num_classes)


def build_report(
    sweep: Sweep, *, train: FeatureRun, test: FeatureRun, device: torch.device
) -> BenchmarkReport:
    """The accuracy in percent, and the guess for every test picture."""
    guesses = sweep.classifier.predict(torch.from_numpy(test.features()).to(device)).tolist()
    items = verdicts(test, guesses)
    sizes = (len(train.labels_N), len(items))
    return BenchmarkReport(
        benchmark=BENCHMARK if sizes == NUM_OFFICIAL else f"{BENCHMARK}-own",
        metrics={"accuracy": accuracy(items)},
        counts=ItemCounts(len(items)),
        items=items,
        settings=_describe(sweep, train=train, test=test),
    )


def _describe(sweep: Sweep, *, train: FeatureRun, test: FeatureRun) -> dict[str, Any]:
    """Settings of the test side as everywhere, those of the training side below them."""
    accuracies = {f"{key:g}": value for key, value in sweep.held_out_accuracies.items()}
    return {
        **read_json(test.config.output / SETTINGS_FILE),
        "train": read_json(train.config.output / SETTINGS_FILE),
        "penalty": sweep.penalty,
        "held_out_accuracies": accuracies,
    }


@app.command(
    help="Learn classes from the features of training pictures, and test on others. Started again, "
    "it goes on. Under torchrun every process encodes its share.\n\n"
    f"Example: {COMMAND} imagenet/train imagenet/val -o results/probe --model unitok:nano"
)
def main(
    train: Annotated[str, typer.Argument(help="Labelled pictures: folder, .npz, table")],
    test: Annotated[str, typer.Argument(help="Labelled pictures of the same classes")],
    output: Output,
    model: Annotated[str, typer.Option(help="unitok:NAME or clip:NAME@WEIGHTS")] = "unitok:nano",
    train_split: Split = "train",
    test_split: Split = "validation",
    limit: Limit = None,
    autocast: Annotated[bool, typer.Option(help="bfloat16 autocast, as for zero-shot")] = True,
    batch_size: BatchSize = 32,
    num_processes: NumProcesses = 1,
    device: Device = "auto",
) -> None:
    quiet_libraries()
    with user_errors():
        learning, testing = (
            FeatureRun(
                FeatureConfig(
                    model,
                    data,
                    output / folder,
                    kind="probe",
                    batch_size=batch_size,
                    device=device,
                    use_autocast=autocast,
                )
            )
            for data, folder in (
                (PictureData(train, train_split, limit), TRAIN_FOLDER),
                (PictureData(test, test_split, limit), TEST_FOLDER),
            )
        )
        num_classes = check_classes(learning, testing)
        are_done = [extract(run, num_processes=num_processes) for run in (learning, testing)]
        if not all(are_done):
            return
        chosen = choose_device(device)
        sweep = learn(learning, num_classes=num_classes, device=chosen)
        report = build_report(sweep, train=learning, test=testing, device=chosen)
        write_report(report, output / REPORT_FILE)
    print_report(report)
    say(f"penalty {sweep.penalty:g}; everything is in {output}")


if __name__ == "__main__":
    app()
