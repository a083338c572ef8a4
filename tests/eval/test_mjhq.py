"""MJHQ-30K's FID: which pictures must be there, what stands beside the number, and the commands."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eval import mjhq
from eval.fid import feature_statistics, frechet_distance
from eval.file_hashes import hash_lines, sha256_of
from eval.mjhq import app
from eval.mjhq_fid import Comparison, compare, read_entries, score
from eval.picture_features import extract_features, find_pictures
from eval.picture_folder import SETTINGS_FILE
from eval.report import read_report
from tests.eval.tiny_extractor import TinyExtractor
from tests.mllm.tiny_pipeline import build_tiny_pipeline

METADATA = {
    f"{category[0]}{number}": {"category": category, "prompt": f"{category} {number}", "seed": 1}
    for category in ("animals", "food")
    for number in range(5)
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    build_tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def metadata(tmp_path):
    path = tmp_path / "meta_data.json"
    path.write_text(json.dumps(METADATA))
    return path


def write_pictures(folder, *, seed, side):
    random = np.random.default_rng(seed)
    for name, record in METADATA.items():
        path = folder / record["category"] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Generated pictures of 16 pixels, references of 24."""
    generated = write_pictures(tmp_path / "generated", seed=0, side=16)
    return generated, write_pictures(tmp_path / "references", seed=1, side=24)


@pytest.fixture
def tiny_inception(monkeypatch):
    """The score command with the tiny network in place of Inception."""
    monkeypatch.setattr(
        mjhq.Inception, "from_file", classmethod(lambda cls, path, *, device: TinyExtractor())
    )


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_fid_is_that_of_all_pictures_after_the_clean_resize(metadata, folders):
    report = compare(Comparison(*folders, metadata), TinyExtractor())
    statistics = [
        feature_statistics(
            extract_features(find_pictures(folder), TinyExtractor(), resize="clean").features
        )
        for folder in folders
    ]
    assert report.headline == ("fid", frechet_distance(*statistics, method="sqrtm"))
    assert report.metrics["fid"] > 0
    assert report.groups == ()


def test_a_folder_is_at_no_distance_from_itself(metadata, folders):
    report = compare(Comparison(folders[0], folders[0], metadata), TinyExtractor())
    assert report.metrics["fid"] == pytest.approx(0, abs=1e-6)


def test_all_that_decides_the_number_stands_beside_it(metadata, folders):
    report = compare(Comparison(*folders, metadata), TinyExtractor())
    names = [f"{METADATA[name]['category']}/{name}.jpg" for name in METADATA]
    assert report.settings == {
        "extractor": "tiny",
        "extractor_sha256": TinyExtractor.sha256,
        "resize": "clean",
        "distance": "sqrtm, as clean-fid",
        "metadata_sha256": sha256_of(metadata),
        "pictures": {
            "folder": str(folders[0]),
            "num_pictures": 10,
            "names_sha256": hash_lines(names),
            "formats": {".jpg": 10},
            "sizes": {"16x16": 10},
        },
        "references": {
            "folder": str(folders[1]),
            "num_pictures": 10,
            "names_sha256": hash_lines(names),
            "formats": {".jpg": 10},
            "sizes": {"24x24": 10},
        },
        "generation": None,
    }
    assert report.notes == (
        "meta_data.json has 10 prompts, not 30000: no published score compares",
        "references by size: 10 of 24x24; the FID depends on it",
    )


def test_a_stopped_comparison_goes_on_and_gives_the_same_report(metadata, folders, tmp_path):
    comparison = Comparison(*folders, metadata, batch_size=4)
    whole = score(comparison, TinyExtractor(), output=tmp_path / "whole.json")

    class Counting(TinyExtractor):
        num_left = 4

        def extract(self, pixels):
            if not self.num_left:
                raise KeyboardInterrupt
            self.num_left -= 1
            return super().extract(pixels)

    output, parts = tmp_path / "report.json", tmp_path / "report.parts"
    with pytest.raises(KeyboardInterrupt):
        score(comparison, Counting(), output=output)
    assert not output.exists()
    assert len(list(parts.iterdir())) == 4
    changed = folders[0] / "food" / "f4.jpg"
    changed.write_bytes(changed.read_bytes())  # of another time, so it is looked at again
    second = Counting()
    assert score(comparison, second, output=output) == whole
    assert second.num_left == 4 - 3  # two of the references, and the batch of the changed file
    assert output.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert not parts.exists()


def test_features_of_another_network_are_not_taken(metadata, folders, tmp_path):
    class Other(TinyExtractor):
        sha256 = "0" * 64

        def extract(self, pixels):
            raise InterruptedError

    compare(Comparison(*folders, metadata), TinyExtractor(), parts=tmp_path / "parts")
    with pytest.raises(InterruptedError):
        compare(Comparison(*folders, metadata), Other(), parts=tmp_path / "parts")


def test_few_pictures_for_the_features_are_noted(metadata, folders):
    for name in list(METADATA)[:5]:
        (folders[0] / "animals" / f"{name}.jpg").unlink()
    report = compare(Comparison(*folders, metadata, is_partial=True), TinyExtractor())
    assert "5 pictures are few for 6 features: the FID is too high" in report.notes


def test_categories_are_compared_on_their_own(metadata, folders):
    report = compare(Comparison(*folders, metadata, per_category=True), TinyExtractor())
    assert [group.group for group in report.groups] == ["animals", "food"]
    food = [
        feature_statistics(
            extract_features(
                find_pictures(folder / "food"), TinyExtractor(), resize="clean"
            ).features
        )
        for folder in folders
    ]
    assert report.groups[1].num_items == 5
    assert report.groups[1].score == pytest.approx(frechet_distance(*food), rel=1e-5)


def test_folders_of_other_pictures_are_an_error_or_a_labelled_partial_run(metadata, folders):
    generated, references = folders
    (generated / "food" / "f3.jpg").unlink()
    (references / "food" / "f4.jpg").rename(references / "food" / "other.jpg")
    comparison = Comparison(generated, references, metadata)
    message = (
        r"generated lacks 1 pictures \(food/f3\); .*references lacks 1 pictures \(food/f4\); "
        r".*references has 1 pictures \(food/other\) that meta_data.json does not name: complete"
    )
    with pytest.raises(ValueError, match=message):
        compare(comparison, TinyExtractor())
    report = compare(Comparison(generated, references, metadata, is_partial=True), TinyExtractor())
    assert (report.counts.num_items, report.counts.num_missing) == (9, 1)
    assert f"partial: {generated} lacks 1 pictures (food/f3)" in report.notes


def test_one_picture_in_two_formats_is_counted_twice_and_said(metadata, folders):
    Image.new("RGB", (8, 8)).save(folders[0] / "food" / "f1.png")
    with pytest.raises(ValueError, match="has 1 pictures of one name and several formats"):
        compare(Comparison(*folders, metadata), TinyExtractor())


def test_references_in_another_format_are_the_same_pictures(metadata, folders):
    for path in find_pictures(folders[1]):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    report = compare(Comparison(*folders, metadata), TinyExtractor())
    assert report.settings["references"]["formats"] == {".png": 10}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a dog"}, "'x' must have the texts category and prompt"),
        ({"category": "animals", "prompt": " "}, "'x' must have the texts category and prompt"),
        ({"category": "animals", "prompt": 3}, "'x' must have the texts category and prompt"),
        ("a dog", "'x' must have the texts category and prompt, got a dog"),
        ({"category": "../up", "prompt": "a dog"}, r"'\.\./up' is no name for a file or folder"),
    ],
)
def test_an_entry_that_cannot_be_drawn_is_named(tmp_path, record, message):
    path = tmp_path / "meta_data.json"
    path.write_text(json.dumps({"x": record}))
    with pytest.raises(ValueError, match=message):
        read_entries(path)


def test_missing_and_empty_metadata_are_explained(tmp_path):
    path = tmp_path / "meta_data.json"
    with pytest.raises(FileNotFoundError, match=r"expected meta_data\.json of the data set"):
        read_entries(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="has no prompts"):
        read_entries(path)


def test_names_that_leave_the_folder_are_refused(tmp_path):
    path = tmp_path / "meta_data.json"
    for name in ("..", "a/b", "", "a\\b"):
        path.write_text(json.dumps({name: {"category": "food", "prompt": "a pear"}}))
        with pytest.raises(ValueError, match="is no name for a file or folder"):
            read_entries(path)


@pytest.mark.usefixtures("tiny_inception")
def test_pictures_are_drawn_into_their_categories_and_scored(tmp_path, metadata, folders, model):
    drawn, output = tmp_path / "drawn", tmp_path / "report.json"
    generate = ["generate", metadata, "-o", drawn, "--model", model, "--device", "cpu"]
    result = run(*generate)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (drawn / "food").iterdir()) == [
        f"f{number}.jpg" for number in range(5)
    ]
    assert Image.open(drawn / "animals" / "a0.jpg").size == (32, 32)
    score = ["score", metadata, drawn, folders[1], "-o", output]
    result = run(*score)
    assert result.exit_code == 0, result.stderr
    assert "FID by tiny; everything is in" in result.stdout
    report = read_report(output)
    assert report.settings["generation"]["seed_rule"] == "seed + number of the picture, from 0"
    assert report.settings["generation"]["rounding"] == "truncate"
    assert "pass --force to overwrite it" in run(*score).stderr
    refused = run(*generate, "--seed", 1)
    assert refused.exit_code == 1
    assert "was begun with seed 0, got 1" in refused.stderr


@pytest.mark.usefixtures("tiny_inception")
def test_pictures_of_rewritten_prompts_are_not_scored(tmp_path, metadata, folders):
    (folders[0] / SETTINGS_FILE).write_text(json.dumps({"prompts_sha256": "other"}))
    result = run("score", metadata, *folders, "-o", tmp_path / "report.json")
    assert result.exit_code == 1
    assert "were drawn for other prompts than these" in result.stderr


def test_without_inception_s_weights_nothing_is_read(tmp_path, metadata, folders):
    weights = tmp_path / "weights.pth"
    arguments = ["score", metadata, *folders, "-o", tmp_path / "report.json"]
    result = run(*arguments, "--inception", weights, "--device", "cpu")
    assert result.exit_code == 1
    assert f"no Inception weights at {weights}; download https" in result.stderr
    assert "reading" not in result.stderr
