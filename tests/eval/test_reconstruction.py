"""Reconstruction: by the paper's protocol, the same for any number of processes, and resumable."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from typer.testing import CliRunner

from eval.fid_resize import resize_tensorflow
from eval.picture_sources import PictureData
from eval.reconstruction import app
from eval.reconstruction_report import finish
from eval.reconstruction_run import Instruments, ReconstructionConfig, ReconstructionRun
from eval.report import read_report
from eval.tokenizer_peers import Reconstruction, UniTokPeer
from mllm.share import WHOLE, Share
from tests.eval.tiny_extractor import TinyExtractor
from tests.mllm.tiny_pipeline import build_tiny_tokenizer
from unitok.image import preprocess, to_pil

SIZE = 32  # the tiny tokenizer's
NUM_PICTURES = 11


class HalfLpips:
    """In place of the network: half the mean absolute difference."""

    name = "half"
    sha256 = "0" * 64

    def compare(self, first, second):
        return (first - second).abs().flatten(1).mean(1) / 2


class DarkPeer:
    """Makes every picture a little darker, so that all scores can be computed by hand."""

    fingerprint = "dark"
    image_size = SIZE
    codebook_size = None

    def reconstruct(self, pixels):
        return Reconstruction((pixels - 0.1).clamp(-1, 1), None)


def write_pictures(folder: Path, side: int = SIZE) -> Path:
    """Pictures of colours, some of them noisy, with PNG names."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(NUM_PICTURES):
        base = np.full((side, side, 3), random.integers(40, 220, 3))
        noise = random.integers(-40, 40, base.shape) * (number % 3)
        pixels = np.clip(base + noise // 2, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def config(tmp_path):
    data = PictureData(str(write_pictures(tmp_path / "source")))
    return ReconstructionConfig("unitok:tiny", data, tmp_path / "results", batch_size=3)


def unitok_tools() -> Instruments:
    return Instruments(UniTokPeer(build_tiny_tokenizer()), TinyExtractor(), HalfLpips())


def measure(config, tools, *, shares=(WHOLE,)):
    run = ReconstructionRun(config)
    for share in shares:
        run.measure(tools, share, count_done=lambda number: None)
    return run, finish(run)


def read_pngs(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def features_of(pictures: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    resized = torch.from_numpy(np.stack([resize_tensorflow(each) for each in pictures]))
    extracted = TinyExtractor().extract(resized.permute(0, 3, 1, 2))
    return extracted.features, extracted.logits


# -- the paper's protocol --------------------------------------------------------------------------


def test_rfid_and_inception_score_are_torch_fidelity_s_of_the_two_folders(config):
    _, report = measure(config, unitok_tools())
    ours = read_pngs(config.output / "reconstructions")
    source = read_pngs(Path(config.data.path))
    features, logits = features_of(ours)
    statistics = [fid_features_to_statistics(each) for each in (features, features_of(source)[0])]
    fid = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    # The batches are others: 1e-7 of the features.
    assert report.metrics["rfid"] == pytest.approx(fid, rel=1e-4)
    score = isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=0)
    assert report.metrics["inception_score"] == pytest.approx(
        score["inception_score_mean"], rel=1e-5
    )
    assert report.metrics["inception_score_std"] == pytest.approx(
        score["inception_score_std"], abs=1e-6
    )


def test_stored_pictures_are_the_rounded_decoded_crops_under_their_names(config):
    run, _ = measure(config, unitok_tools())
    tokenizer = build_tiny_tokenizer()
    picture = Image.open(Path(config.data.path) / "04.png")
    pixels = preprocess(picture, "rfid", image_size=SIZE)
    with torch.inference_mode():
        expected = to_pil(tokenizer.decode(tokenizer.encode(pixels)))[0]
    stored = np.asarray(Image.open(run.picture_path(4))).astype(int)
    assert run.picture_path(4).name == "04.png"
    assert np.abs(stored - np.asarray(expected)).max() <= 1  # batches round otherwise


def test_pixel_scores_are_means_over_pictures_of_8_bits(config):
    _, report = measure(config, Instruments(DarkPeer(), None, HalfLpips()))
    source, ours = read_pngs(Path(config.data.path)), read_pngs(config.output / "reconstructions")
    difference = (source.astype(float) - ours).reshape(NUM_PICTURES, -1)
    psnr = 10 * np.log10(255**2 / (difference**2).mean(axis=1))
    assert report.metrics["psnr"] == pytest.approx(psnr.mean(), rel=1e-5)
    distance = np.abs(difference).mean(axis=1) / 255  # of 2 in [-1, 1], halved
    assert report.metrics["lpips"] == pytest.approx(distance.mean(), rel=1e-4)
    assert [item.item_id for item in report.items] == [f"{n:02d}" for n in range(NUM_PICTURES)]
    assert [item.score for item in report.items] == pytest.approx(psnr.tolist(), rel=1e-5)
    assert report.items[0].details.keys() == {"ssim", "lpips"}


def test_codes_give_bits_per_pixel_and_the_use_of_each_codebook(config):
    run, report = measure(config, unitok_tools())
    codes = run.parts.read()["codes"]
    assert codes.shape == (NUM_PICTURES, 4, 4)
    assert report.metrics["bits_per_pixel"] == 4 * 4 * 5 / SIZE**2  # 32 entries: 5 bits
    assert [group.group for group in report.groups[3:5]] == [
        "usage of codebook 3",
        "perplexity of codebook 0",
    ]
    used = [len(np.unique(codes[..., k])) / 32 * 100 for k in range(4)]
    assert [group.score for group in report.groups[:4]] == pytest.approx(used)
    assert report.metrics["codebook_usage"] == pytest.approx(np.mean(used))
    assert 1 < report.metrics["codebook_perplexity"] < 32


def test_what_is_not_quantized_has_no_codebooks(config):
    _, report = measure(config, Instruments(DarkPeer(), None, None))
    for name in ("bits_per_pixel", "codebook_usage", "codebook_perplexity", "rfid", "lpips"):
        assert report.metrics[name] is None
    assert report.groups == ()
    assert "nothing is quantized: there are no bits per pixel and no codebooks" in report.notes


def test_larger_sources_are_cropped_but_compared_whole_and_that_is_said(tmp_path):
    data = PictureData(str(write_pictures(tmp_path / "source", side=48)))
    config = ReconstructionConfig("dark", data, tmp_path / "results")
    run, report = measure(config, Instruments(DarkPeer(), TinyExtractor(), None))
    assert Image.open(run.picture_path(0)).size == (SIZE, SIZE)
    references = run.parts.read()["reference_features"]
    whole, _ = features_of(read_pngs(Path(data.path)))
    assert np.allclose(references, whole, rtol=1e-5)
    assert any("compares 32x32 crops with whole sources (11 of 48x48)" in n for n in report.notes)


def test_after_another_recipe_the_reference_is_what_the_model_saw(tmp_path):
    data = PictureData(str(write_pictures(tmp_path / "source", side=48)))
    config = ReconstructionConfig("dark", data, tmp_path / "results", recipe="zero_shot")
    run, report = measure(config, Instruments(DarkPeer(), TinyExtractor(), None))
    seen, _ = features_of(np.stack([np.asarray(run.fit(n, SIZE)) for n in range(NUM_PICTURES)]))
    assert np.allclose(run.parts.read()["reference_features"], seen, rtol=1e-5)
    assert not any("whole sources" in note for note in report.notes)


def test_another_size_than_the_model_s_is_measured_at_the_same_bits_per_pixel(tmp_path):
    data = PictureData(str(write_pictures(tmp_path / "source", side=64)))
    config = ReconstructionConfig("tiny", data, tmp_path / "results", image_size=64)
    run, report = measure(config, unitok_tools())
    assert Image.open(run.picture_path(0)).size == (64, 64)
    assert run.parts.read()["codes"].shape == (NUM_PICTURES, 16, 4)
    assert report.metrics["bits_per_pixel"] == 4 * 4 * 5 / SIZE**2
    assert report.settings["image_size"] == 64


def test_a_picture_below_the_size_is_named(config):
    Image.new("RGB", (20, 20)).save(Path(config.data.path) / "small.png")
    with pytest.raises(ValueError, match="cannot use small: the image must be at least 32x32"):
        measure(config, unitok_tools())


# -- one number, however it is computed ------------------------------------------------------------


def test_shares_give_the_files_and_the_report_of_one_process(config):
    _, alone = measure(config, unitok_tools())
    shared_config = replace(config, output=config.output.with_name("shared"))
    shares = [Share(index, 3) for index in (2, 0, 1)]
    _, shared = measure(shared_config, unitok_tools(), shares=shares)
    assert shared == alone
    for path in sorted(config.output.rglob("*")):
        twin = shared_config.output / path.relative_to(config.output)
        assert path.is_dir() or twin.read_bytes() == path.read_bytes(), path


def test_a_run_goes_on_with_the_batches_that_are_missing(config):
    run, whole = measure(config, unitok_tools())
    parts = sorted((config.output / "parts").iterdir())
    assert [path.name for path in parts][:2] == ["0000000-0000003.npz", "0000003-0000006.npz"]
    times = [path.stat().st_mtime_ns for path in parts]
    parts[1].unlink()
    assert run.parts.count() == (8, 11)
    counted: list[int] = []
    run.measure(unitok_tools(), WHOLE, count_done=counted.append)
    assert counted == [3]
    assert finish(run) == whole
    kept = [path.stat().st_mtime_ns for path in parts]
    assert [now == before for now, before in zip(kept, times, strict=True)] == [
        True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("num_before", [1, 3])
def test_a_run_that_is_killed_at_a_batch_goes_on_to_the_same_report(config, num_before):
    _, whole = measure(config, unitok_tools())
    killed = ReconstructionRun(replace(config, output=config.output.with_name("killed")))
    remaining = iter([None] * (num_before - 1))

    def die(number):
        next(remaining)

    with pytest.raises(StopIteration):
        killed.measure(unitok_tools(), WHOLE, count_done=die)
    assert killed.parts.count() == (3 * num_before, NUM_PICTURES)
    assert measure(killed.config, unitok_tools())[1] == whole


def test_a_folder_of_another_model_or_other_pictures_is_refused(config):
    measure(config, unitok_tools())
    with pytest.raises(ValueError, match=r"was begun with model_fingerprint .*, got dark"):
        measure(config, Instruments(DarkPeer(), TinyExtractor(), HalfLpips()))
    (Path(config.data.path) / "00.png").unlink()
    with pytest.raises(ValueError, match="was begun with num_pictures 11, got 10"):
        measure(config, unitok_tools())


def test_the_picture_shows_sources_above_reconstructions_best_first(config):
    run, report = measure(config, Instruments(DarkPeer(), None, None))
    grid = Image.open(config.output / "pictures.png")
    assert grid.size == (6 * SIZE + 5 * 4, 6 * SIZE + 5 * 4)
    # Of pictures that are equally good, the first comes first.
    order = sorted(range(NUM_PICTURES), key=lambda number: -report.items[number].score)
    best, worst = order[0], order[-1]
    corner = grid.crop((0, 0, SIZE, SIZE))
    assert np.array_equal(corner, Image.open(Path(config.data.path) / f"{best:02d}.png"))
    last = grid.crop((grid.width - SIZE, grid.height - SIZE, grid.width, grid.height))
    assert np.array_equal(last, Image.open(run.picture_path(worst)))


def test_a_recipe_without_a_fixed_size_is_refused(config):
    with pytest.raises(ValueError, match=r"recipe must be one of .*, got 'native'"):
        replace(config, recipe="native")


# -- the command -----------------------------------------------------------------------------------


def run_command(*arguments, code=0):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def tiny_model(tmp_path):
    build_tiny_tokenizer().save_pretrained(tmp_path / "model")
    return f"unitok:{tmp_path / 'model'}"


def test_the_command_measures_prints_and_stores(tmp_path, tiny_model):
    source = write_pictures(tmp_path / "source")
    arguments = [source, "-o", tmp_path / "out", "--model", tiny_model, "--no-rfid", "--no-lpips"]
    said = run_command(*arguments)
    assert "reconstructing 11 of 11 pictures" in said.stderr
    assert "pictures.png shows the best, median and worst" in said.stdout
    report = read_report(tmp_path / "out" / "report.json")
    assert report.benchmark == "reconstruction-own"
    assert "published scores are of ImageNet's 50000 validation pictures" in report.notes[0]
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["model"] == tiny_model
    assert settings["recipe"] == "rfid"
    assert "reconstructing 0 of 11 pictures" in run_command(*arguments).stderr
    assert read_report(tmp_path / "out" / "report.json") == report


def test_an_npz_of_the_same_pictures_has_the_same_scores(tmp_path, tiny_model):
    source = write_pictures(tmp_path / "source")
    np.savez(tmp_path / "pictures.npz", read_pngs(source))
    reports = {}
    for data in (source, tmp_path / "pictures.npz"):
        output = tmp_path / f"out_{data.stem}"
        run_command(data, "-o", output, "--model", tiny_model, "--no-rfid", "--no-lpips")
        reports[data.stem] = read_report(output / "report.json")
    assert reports["source"].metrics == reports["pictures"].metrics
    assert reports["pictures"].items[3].item_id == "000003"


@pytest.mark.slow
def test_two_processes_end_with_the_report_of_one(tmp_path, tiny_model):
    source = write_pictures(tmp_path / "source")
    for name, number in (("one", 1), ("two", 2)):
        options = ["--no-rfid", "--no-lpips", "--batch-size", 2, "--num-processes", number]
        run_command(source, "-o", tmp_path / name, "--model", tiny_model, *options)
    one, two = (read_report(tmp_path / name / "report.json") for name in ("one", "two"))
    assert one == two


def test_missing_weights_are_named_before_anything_is_read(tmp_path, tiny_model):
    source = write_pictures(tmp_path / "source")
    base = [source, "-o", tmp_path / "out", "--model", tiny_model]
    said = run_command(*base, "--inception", tmp_path / "no.pth", code=1)
    assert f"error: no Inception weights at {tmp_path / 'no.pth'}; download" in said.stderr
    said = run_command(*base, "--no-rfid", "--alexnet", tmp_path / "no.pth", code=1)
    assert f"error: no AlexNet weights at {tmp_path / 'no.pth'}; download" in said.stderr
    assert not (tmp_path / "out").exists()
