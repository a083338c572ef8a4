"""Zero-shot classification and linear probes: what is compared, shared out, and said."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from eval import linear_probe, zeroshot
from eval.feature_run import FeatureConfig, FeatureRun
from eval.picture_sources import PictureData
from eval.report import read_report
from eval.tokenizer_peers import UniTokPeer
from eval.zeroshot import ClassTexts, build_report
from mllm.share import WHOLE, Share
from tests.mllm.tiny_pipeline import build_tiny_tokenizer
from unitok.image import preprocess

NAMES = ("red", "green", "blue", "grey", "white")


def write_classes(folder, *, per_class=4, seed=0):
    """Pictures of one colour each with noise, in a folder for each colour."""
    random = np.random.default_rng(seed)
    colors = [(200, 30, 30), (30, 180, 40), (30, 40, 200), (120, 120, 120), (235, 235, 235)]
    for label, color in enumerate(colors):
        for number in range(per_class):
            pixels = np.array(color) + random.integers(-20, 20, (32, 40, 3))
            path = folder / f"c{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def pictures(tmp_path):
    return write_classes(tmp_path / "pictures")


@pytest.fixture
def names_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


@pytest.fixture
def model_name(tmp_path):
    build_tiny_tokenizer().save_pretrained(tmp_path / "model")
    return f"unitok:{tmp_path / 'model'}"


@pytest.fixture
def config(tmp_path, pictures):
    data = PictureData(str(pictures))
    return FeatureConfig(
        "unitok:tiny", data, tmp_path / "out", "text_aligned", batch_size=3, use_autocast=False
    )


def run_app(app, *arguments, code=0):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result


def measure(config, *shares):
    run = FeatureRun(config)
    for share in shares:
        run.measure(UniTokPeer(build_tiny_tokenizer()), share, count_done=lambda number: None)
    return run


# -- features --------------------------------------------------------------------------------------


def test_features_are_the_model_s_after_the_official_preprocessing(config, pictures):
    features = measure(config, WHOLE).features()
    pixels = preprocess(Image.open(pictures / "c1" / "2.png"), "zero_shot", image_size=32)
    with torch.inference_mode():
        expected = build_tiny_tokenizer().encode_image(pixels)[0]
    assert features.shape == (20, 16)
    assert features.dtype == np.float32
    assert features[6] == pytest.approx(expected.numpy(), abs=1e-5)


def test_shares_give_the_features_of_one_process_and_go_on(config):
    whole = measure(config, WHOLE).features()
    shared = replace(config, output=config.output.with_name("shared"))
    run = measure(shared, Share(1, 2))
    assert run.parts.count() == (9, 20)
    measure(shared, Share(0, 2), WHOLE)
    assert np.array_equal(run.features(), whole)


def test_autocast_is_official_and_changes_little(config):
    exact = measure(config, WHOLE).features()
    official = replace(config, output=config.output.with_name("cast"), use_autocast=True)
    cast = measure(official, WHOLE).features()
    assert not np.array_equal(cast, exact)
    assert (cast * exact).sum(axis=1).min() > 0.9
    settings = json.loads((official.output / "settings.json").read_text())
    assert settings["autocast"] == "bfloat16"


def test_pictures_without_labels_are_refused(config, pictures):
    data = PictureData(str(pictures / "c0"))
    with pytest.raises(ValueError, match=r"c0 have no labels; expected a folder for each class"):
        FeatureRun(replace(config, data=data))


# -- zero-shot -------------------------------------------------------------------------------------


def test_the_nearest_class_is_the_guess(config):
    run = measure(config, WHOLE)
    features = torch.from_numpy(run.features())
    # Vectors of three classes are features of theirs; two classes have changed places.
    vectors = features[[0, 4, 8, 16, 12]]
    report = build_report(run, ClassTexts(NAMES, ("{}",)), vectors=vectors)
    guesses = (features @ vectors.T).argmax(dim=1)
    labels = torch.arange(5).repeat_interleave(4)
    assert report.metrics == {
        "top1": pytest.approx(100 * (guesses == labels).double().mean().item()),
        "top5": 100,
    }
    assert report.items[13].item_id == "c3/1"
    assert report.items[13].details == {"label": 3, "guess": guesses[13].item()}
    assert report.benchmark == "zeroshot-own"
    assert "20 pictures of 5 classes: published scores are of ImageNet's" in report.notes[0]


def test_the_command_classifies_by_a_list_of_classes(tmp_path, pictures, names_file, model_name):
    output = tmp_path / "results"
    arguments = [pictures, "-o", output, "--model", model_name, "--classes", names_file]
    said = run_app(zeroshot.app, *arguments, "--batch-size", 8)
    assert "encoding 20 of 20 pictures" in said.stderr
    assert "encoding 5 classes in 80 templates" in said.stderr
    report = read_report(output / "report.json")
    assert report.metrics["top5"] == 100
    again = run_app(zeroshot.app, *arguments, "--batch-size", 8)
    assert "encoding 0 of 20 pictures" in again.stderr
    assert "templates" not in again.stderr
    assert read_report(output / "report.json") == report
    names_file.write_text("\n".join(reversed(NAMES)))
    refused = run_app(zeroshot.app, *arguments, "--batch-size", 8, code=1)
    assert "was begun with classes_sha256" in refused.stderr


def test_own_templates_stand_in_for_clip_s(tmp_path, names_file):
    templates = tmp_path / "templates.txt"
    templates.write_text("a {}\nmany {}\n")
    assert ClassTexts.choose(names_file, templates) == ClassTexts(NAMES, ("a {}", "many {}"))
    assert len(ClassTexts.choose(names_file, None).templates) == 80
    assert len(ClassTexts.choose(None, templates).names) == 1000
    templates.write_text("a {}\nmany\n")
    with pytest.raises(ValueError, match=r"a template needs \{\} for the name, got 'many'"):
        ClassTexts.choose(names_file, templates)
    templates.write_text("a {}\n\n")
    with pytest.raises(ValueError, match="one name or template a line, none of them empty"):
        ClassTexts.choose(names_file, templates)
    with pytest.raises(FileNotFoundError, match=r"no file at .*nothing"):
        ClassTexts.choose(tmp_path / "nothing", None)


def test_a_list_that_does_not_fit_the_pictures_is_refused(config):
    run = FeatureRun(config)
    with pytest.raises(ValueError, match="has 5 classes, got 1000 names; name a file with one"):
        ClassTexts.choose(None, None).check(run)
    run.source.class_names = None
    with pytest.raises(ValueError, match=r"the labels of .* are 0 to 4, got 3 class names"):
        ClassTexts(NAMES[:3], ("{}",)).check(run)


# -- linear probe ----------------------------------------------------------------------------------


def test_the_probe_learns_colours_and_stores_how(tmp_path, pictures, model_name):
    test = write_classes(tmp_path / "test", per_class=2, seed=1)
    output = tmp_path / "probe"
    arguments = [pictures, test, "-o", output, "--model", model_name]
    said = run_app(linear_probe.app, *arguments)
    assert "learning 5 classes from 20 pictures" in said.stderr
    report = read_report(output / "report.json")
    assert report.metrics == {"accuracy": 100}
    assert report.counts.num_items == 10
    assert report.settings["features"] == "probe"
    assert report.settings["train"]["num_pictures"] == 20
    assert len(report.settings["held_out_accuracies"]) == 7
    assert f"penalty {report.settings['penalty']:g}" in said.stdout
    run_app(linear_probe.app, *arguments)
    assert read_report(output / "report.json") == report


def test_two_sides_of_other_classes_are_refused(tmp_path, pictures, model_name):
    test = write_classes(tmp_path / "test")
    (test / "c4").rename(test / "d4")
    said = run_app(
        linear_probe.app, pictures, test, "-o", tmp_path / "p", "--model", model_name, code=1
    )
    assert "have other classes; both need the same ones" in said.stderr
