"""Features of labelled pictures by a frozen model, for classification without or with learning.

Shapes: N pictures, B of a batch, E feature width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.batch_parts import BatchParts, fill_parts
from eval.file_hashes import hash_lines
from eval.picture_sources import PictureData, describe_source, open_source
from eval.precision import full_precision
from eval.processes import CountDone
from eval.report import ItemResult
from eval.result_folder import begin_folder
from eval.tokenizer_peers import FeatureModel, load_feature_model, official_precision
from eval.versions import model_versions
from mllm.devices import explain_out_of_memory
from mllm.read_ahead import read_batches
from mllm.share import Share, process_device

PARTS_FOLDER = "features"
FeatureKind: TypeAlias = Literal["text_aligned", "probe"]


@dataclass(frozen=True)
class FeatureConfig:
    """Which features of which pictures, and where to put them."""

    model: str  # see eval/tokenizer_peers.py
    data: PictureData
    output: Path
    kind: FeatureKind
    batch_size: int = 32
    device: str = "auto"
    use_autocast: bool = True  # bfloat16, as the published accuracies
    more_settings: Mapping[str, Any] = field(default_factory=dict)  # of who uses the features


class FeatureRun:
    """One folder of features."""

    def __init__(self, config: FeatureConfig) -> None:
        """Opens the source; ValueError if its pictures have no labels."""
        self.config = config
        self.source = open_source(config.data)
        if self.source.labels is None:
            raise ValueError(
                f"the pictures of {config.data.path} have no labels; expected a folder for each "
                "class, a table with a column label, or an .npz with arr_1"
            )
        self.labels_N = np.asarray(self.source.labels, dtype=np.int64)
        self.parts = BatchParts(
            config.output / PARTS_FOLDER,
            num_items=len(self.source.names),
            batch_size=config.batch_size,
        )

    def measure(self, model: FeatureModel, share: Share, *, count_done: CountDone) -> None:
        """Compute what is missing of a share; a folder of other settings is refused."""
        # A model may lie elsewhere than before: its fingerprint is what is compared.
        remarks = {"model": self.config.model, "versions": model_versions()}
        begin_folder(self.config.output, self._settings(model), remarks=remarks)
        missing = self.parts.missing(share)
        batches = read_batches(lambda number: model.prepare(self.source.read(number)), missing)
        for batch, prepared in zip(missing, batches, strict=True):
            features = self._encode(model, torch.stack(prepared))
            self.parts.store(batch, {"features": features.float().cpu().numpy()})
            count_done(len(batch))

    def features(self) -> NDArray:
        """Features (N, E) of all pictures, float32; call it when none is missing."""
        return self.parts.read()["features"]

    @torch.inference_mode()
    def _encode(self, model: FeatureModel, pixels: Tensor) -> Tensor:
        encode = model.encode_image if self.config.kind == "text_aligned" else model.probe_features
        device = process_device(self.config.device)
        with (
            full_precision(),
            official_precision(device, use_autocast=self.config.use_autocast),
            explain_out_of_memory(f"encoding {len(pixels)}", "set a smaller --batch-size"),
        ):
            return encode(pixels)

    def _settings(self, model: FeatureModel) -> dict[str, Any]:
        """All that decides the features, for JSON."""
        config = self.config
        return {
            "model_fingerprint": model.fingerprint,
            **describe_source(self.source, config.data),
            "labels_sha256": hash_lines(map(str, self.labels_N.tolist())),
            "features": config.kind,
            "batch_size": config.batch_size,
            "device": process_device(config.device).type,
            "autocast": "bfloat16" if config.use_autocast else None,
            **config.more_settings,
        }


def verdicts(run: FeatureRun, guesses: Sequence[int]) -> tuple[ItemResult, ...]:
    """Of every picture whether its guessed label is right, 1 or 0."""
    return tuple(
        ItemResult(name, float(guess == label), details={"label": label, "guess": guess})
        for name, label, guess in zip(run.source.names, run.labels_N.tolist(), guesses, strict=True)
    )


@dataclass(frozen=True)
class FeatureTask:
    """The run, for several processes."""

    config: FeatureConfig

    def run(self, share: Share, count_done: CountDone) -> None:
        """Compute this process's share."""
        model = load_feature_model(self.config.model, device=process_device(self.config.device))
        FeatureRun(self.config).measure(model, share, count_done=count_done)


def extract(run: FeatureRun, *, num_processes: int) -> bool:
    """Compute what this command has to; True if all features are there then."""
    description = f"{run.config.data.path}: encoding"
    return fill_parts(run.parts, FeatureTask(run.config), description, num_processes=num_processes)
