"""Scores of a tokenizer in training, on pictures that it is not trained on.

They are measured by the code of `eval.reconstruction` and `eval.zeroshot`, so they are what these
commands would say about the same weights. Reports stay in scores/step_000500/ of the run folder.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from eval.feature_run import PARTS_FOLDER as FEATURES_FOLDER
from eval.feature_run import FeatureConfig, FeatureRun
from eval.inception import Inception
from eval.picture_sources import PictureData
from eval.reconstruction_report import finish
from eval.reconstruction_run import (
    PARTS_FOLDER,
    PICTURES_FOLDER,
    Instruments,
    ReconstructionConfig,
    ReconstructionRun,
)
from eval.report import write_report
from eval.tokenizer_peers import UniTokPeer
from eval.zeroshot import REPORT_FILE, ClassTexts, build_report, encode_texts
from mllm.share import Share, process_device
from train.tokenizer_config import ScoresConfig
from unitok.model import UniTok

SCORES_FOLDER = "scores"
MODEL_NAME = "in training"
BULKY = (PARTS_FOLDER, PICTURES_FOLDER, FEATURES_FOLDER)  # needed only until there is a report


class Measurement(Protocol):
    """One command of `eval`, inside a training."""

    def measure(self, peer: UniTokPeer, folder: Path, *, share: Share) -> None:
        """Store what belongs to a share of the pictures in `folder`."""

    def report(self, peer: UniTokPeer, folder: Path) -> Mapping[str, float]:
        """Write the report of all shares; returns what is to be logged."""


class HeldOutScores:
    """Measures now and then; every process takes its share of the pictures."""

    def __init__(self, config: ScoresConfig, run: Path, *, device: str, share: Share) -> None:
        """Looks for all that is needed: weights, pictures, and a class name for every label."""
        self.folder = run / SCORES_FOLDER
        self.share = share
        self.measurements: dict[str, Measurement] = {}
        if config.rfid:
            self.measurements["reconstruction"] = ReconstructionScores(config, device=device)
        if config.zero_shot:
            self.measurements["zero_shot"] = ZeroShotScores(config, device=device)

    def clear(self, step: int) -> None:
        """Forget what a run that was lost had measured at a step."""
        shutil.rmtree(self._place(step), ignore_errors=True)

    def measure(self, model: UniTok, step: int, *, name: str) -> None:
        """This process's share of the pictures, by a model called `name`."""
        for key, measurement in self.measurements.items():
            folder = self._place(step) / name / key
            measurement.measure(UniTokPeer(model), folder, share=self.share)

    def report(self, model: UniTok, step: int, *, name: str) -> dict[str, float]:
        """The values to log, when all processes have measured; for one of them alone."""
        values: dict[str, float] = {}
        for key, measurement in self.measurements.items():
            folder = self._place(step) / name / key
            found = measurement.report(UniTokPeer(model), folder)
            values |= {f"{name}/{what}": score for what, score in found.items()}
            for bulky in BULKY:
                shutil.rmtree(folder / bulky, ignore_errors=True)
        return values

    def _place(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}"


class ReconstructionScores:
    """rFID and Inception Score, as `eval.reconstruction` without options has them."""

    def __init__(self, config: ScoresConfig, *, device: str) -> None:
        self.config = config
        self.device = device
        self.extractor = Inception.from_file(
            config.inception, device=process_device(device), option="watch.scores.inception"
        )
        self._run(Path())  # opens the pictures: what is missing is said now

    def measure(self, peer: UniTokPeer, folder: Path, *, share: Share) -> None:
        tools = Instruments(peer, self.extractor, lpips=None)
        self._run(folder).measure(tools, share, count_done=_show_nothing)

    def report(self, peer: UniTokPeer, folder: Path) -> Mapping[str, float]:
        metrics = finish(self._run(folder)).metrics
        return _known({name: metrics[name] for name in ("rfid", "inception_score")})

    def _run(self, folder: Path) -> ReconstructionRun:
        config = ReconstructionConfig(
            MODEL_NAME,
            picture_data(self.config),
            folder,
            batch_size=self.config.batch_size,
            device=self.device,
            use_lpips=False,
        )
        return ReconstructionRun(config)


class ZeroShotScores:
    """Accuracies in percent, as `eval.zeroshot` without options has them."""

    def __init__(self, config: ScoresConfig, *, device: str) -> None:
        self.config = config
        self.device = device
        self.texts = ClassTexts.choose(config.classes, config.templates)
        self.texts.check(self._run(Path()))

    def measure(self, peer: UniTokPeer, folder: Path, *, share: Share) -> None:
        self._run(folder).measure(peer, share, count_done=_show_nothing)

    def report(self, peer: UniTokPeer, folder: Path) -> Mapping[str, float]:
        run = self._run(folder)
        vectors = encode_texts(run, self.texts, model=peer).float().cpu()
        report = build_report(run, self.texts, vectors=vectors)
        write_report(report, folder / REPORT_FILE)
        return _known({f"zero_shot_{name}": score for name, score in report.metrics.items()})

    def _run(self, folder: Path) -> FeatureRun:
        config = FeatureConfig(
            MODEL_NAME,
            picture_data(self.config),
            folder,
            kind="text_aligned",
            batch_size=self.config.batch_size,
            device=self.device,
        )
        return FeatureRun(config)


def picture_data(config: ScoresConfig) -> PictureData:
    return PictureData(config.data, config.split, config.limit)


def _known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Without those that too few pictures cannot tell."""
    return {name: score for name, score in metrics.items() if score is not None}


def _show_nothing(number: int) -> None:
    """A training has no bar for its measurements."""
