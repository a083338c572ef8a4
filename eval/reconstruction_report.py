"""What becomes of a run's measurements: one report, and a picture of the best and the worst.

rFID and Inception Score are torch-fidelity's, as in the paper's evaluation: features after
TensorFlow's resize, the trace term by eigenvalues, the score over ten splits of an order that
seed 0 shuffles. The others are means over pictures of 8 bits.

Shapes: N pictures, L visual tokens, K codebooks.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.codebook_use import CodebookUse, measure_use
from eval.fid import feature_statistics, frechet_distance, inception_score
from eval.reconstruction_run import OFFICIAL_RECIPE, ReconstructionRun
from eval.report import BenchmarkReport, GroupScore, ItemCounts, ItemResult, write_report
from eval.result_folder import SETTINGS_FILE
from mllm.pictures import make_grid, save_png
from unitok.files import read_json

BENCHMARK = "reconstruction"
NUM_OFFICIAL, OFFICIAL_SIZE = 50_000, 256  # ImageNet's validation pictures
REPORT_FILE = "report.json"
GRID_FILE = "pictures.png"
NUM_SPLITS, SPLIT_SEED = 10, 0  # of the Inception Score
GRID_COLUMNS = 6
Arrays = Mapping[str, NDArray]


def finish(run: ReconstructionRun) -> BenchmarkReport:
    """Report and grid of a complete run, written into its folder."""
    folder = run.config.output
    settings = read_json(folder / SETTINGS_FILE)
    arrays = run.parts.read()
    report = build_report(arrays, run.source.names, settings=settings)
    write_report(report, folder / REPORT_FILE)
    grid = draw_extremes(run, arrays["psnr"], size=settings["image_size"])
    save_png(grid, folder / GRID_FILE, notes={"rows": "best, median, worst by PSNR; source above"})
    return report


def build_report(
    arrays: Arrays, names: Sequence[str], *, settings: Mapping[str, Any]
) -> BenchmarkReport:
    """The metrics over all pictures, each picture's own, and what a reader must know."""
    use = None
    if "codes" in arrays:
        use = measure_use(arrays["codes"], settings["codebook_size"])
    is_official = (
        settings["recipe"] == OFFICIAL_RECIPE
        and settings["image_size"] == OFFICIAL_SIZE
        and len(names) == NUM_OFFICIAL
    )
    return BenchmarkReport(
        benchmark=BENCHMARK if is_official else f"{BENCHMARK}-own",
        metrics={
            **_inception_metrics(arrays),
            "psnr": _mean(arrays["psnr"]),
            "ssim": _mean(arrays["ssim"]),
            "lpips": _mean(arrays["lpips"]) if "lpips" in arrays else None,
            "bits_per_pixel": _bits_per_pixel(arrays, settings),
            "codebook_usage": None if use is None else _mean(use.usage_K),
            "codebook_perplexity": None if use is None else _mean(use.perplexity_K),
        },
        counts=ItemCounts(len(names)),
        groups=tuple(_codebook_rows(use, len(names))) if use else (),
        items=tuple(_item(arrays, number, name) for number, name in enumerate(names)),
        settings=settings,
        notes=tuple(_notes(arrays, settings, num_pictures=len(names), is_official=is_official)),
    )


def _mean(values: NDArray) -> float:
    return float(values.mean(dtype=np.float64))


def _inception_metrics(arrays: Arrays) -> dict[str, float | None]:
    """None where it was not asked for, or there are too few pictures."""
    metrics: dict[str, float | None] = {
        "rfid": None,
        "inception_score": None,
        "inception_score_std": None,
    }
    num_pictures = len(arrays.get("features", ()))
    if num_pictures > 1:
        sides = (feature_statistics(arrays[name]) for name in ("features", "reference_features"))
        metrics["rfid"] = frechet_distance(*sides, method="eigenvalues")
    if num_pictures >= NUM_SPLITS:
        score = inception_score(arrays["logits"], num_splits=NUM_SPLITS, seed=SPLIT_SEED)
        metrics.update(inception_score=score.mean, inception_score_std=score.std)
    return metrics


def _bits_per_pixel(arrays: Arrays, settings: Mapping[str, Any]) -> float | None:
    if "codes" not in arrays:
        return None
    num_sub_codes = math.prod(arrays["codes"].shape[1:])
    return num_sub_codes * math.log2(settings["codebook_size"]) / settings["image_size"] ** 2


def _codebook_rows(use: CodebookUse, num_pictures: int) -> Iterator[GroupScore]:
    for what, values_K in (("usage", use.usage_K), ("perplexity", use.perplexity_K)):
        for number, value in enumerate(values_K):
            yield GroupScore(f"{what} of codebook {number}", num_pictures, float(value))


def _item(arrays: Arrays, number: int, name: str) -> ItemResult:
    """A picture with its PSNR as the score."""
    others = {key: float(arrays[key][number]) for key in ("ssim", "lpips") if key in arrays}
    return ItemResult(name, float(arrays["psnr"][number]), details=others)


def _notes(
    arrays: Arrays, settings: Mapping[str, Any], *, num_pictures: int, is_official: bool
) -> Iterator[str]:
    """What a reader of the numbers must know."""
    if not is_official:
        yield (
            f"{num_pictures} pictures at {settings['image_size']} px, recipe {settings['recipe']}: "
            f"published scores are of ImageNet's {NUM_OFFICIAL} validation pictures at "
            f"{OFFICIAL_SIZE} px, recipe {OFFICIAL_RECIPE}, and do not compare"
        )
    if "codes" not in arrays:
        yield "nothing is quantized: there are no bits per pixel and no codebooks"
    if "features" not in arrays:
        return
    num_features = arrays["features"].shape[1]
    if num_pictures <= num_features:
        yield f"{num_pictures} pictures are few for {num_features} features: the rFID is too high"
    if num_pictures < NUM_SPLITS:
        yield f"the Inception Score needs at least {NUM_SPLITS} pictures"
    sizes = Counter(f"{width}x{height}" for height, width in arrays["size"].tolist())
    side = settings["image_size"]
    if settings["recipe"] == OFFICIAL_RECIPE and set(sizes) != {f"{side}x{side}"}:
        shown = ", ".join(f"{number} of {size}" for size, number in sizes.most_common(3))
        yield (
            f"as officially, the rFID compares {side}x{side} crops with whole sources ({shown}): "
            "crop the sources first for a number about the model alone"
        )


def draw_extremes(run: ReconstructionRun, psnr_N: NDArray, *, size: int) -> Image.Image:
    """Sources above their reconstructions: the best, the median and the worst by PSNR."""
    order = np.argsort(-psnr_N, kind="stable").tolist()
    columns = min(GRID_COLUMNS, len(order))
    middle = (len(order) - columns) // 2
    rows = (order[:columns], order[middle : middle + columns], order[-columns:])
    pictures = []
    for row in rows:
        pictures += [run.fit(number, size) for number in row]
        for number in row:
            with Image.open(run.picture_path(number)) as picture:
                pictures.append(picture.convert("RGB"))
    return make_grid(pictures, columns=columns)
