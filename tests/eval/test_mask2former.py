"""The converted detector against GenEval's official one (fp32, CPU, weights made from names).

The recorded weights take the way of the released ones: a .pth in the official layout, converted,
loaded. Of the recorded mask logits every second row and column is kept here.
"""

import hashlib
import json
import shutil
from collections import OrderedDict

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from eval.detector import CLASS_NAMES, coco_names
from eval.detector_convert import convert_detector
from eval.detector_self_test import RECORD_FILE, KnownOutput, read_record, write_record
from eval.mask2former import HUB_NAME, SOURCE_KEY, Mask2FormerDetector, check_labels
from eval.mmdet_pipeline import Instances, postprocess, preprocess
from tests.eval.detector_goldens import (
    load_items,
    load_layout_and_rule,
    load_tensors,
    make_weights,
    open_image,
)

SMALL_ITEMS = ("img0", "img1")
STEM = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756"


@pytest.fixture(scope="module")
def weights():
    return make_weights()


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    """The recorded weights as the authors publish theirs; removed at the end, being large."""
    place = tmp_path_factory.mktemp("detector")
    state = OrderedDict(weights)
    state._metadata = OrderedDict({"": {"version": 1}})  # torch's own modules leave it there
    content = {"meta": {"CLASSES": coco_names(), "epoch": 50}, "state_dict": state}
    torch.save(content, place / "new.pth", _use_new_zipfile_serialization=False)
    digest = hashlib.sha256((place / "new.pth").read_bytes()).hexdigest()
    yield (place / "new.pth").rename(place / f"{STEM}-{digest[:8]}.pth")
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def folder(checkpoint):
    convert_detector(checkpoint, checkpoint.parent / "converted")
    return checkpoint.parent / "converted"


@pytest.fixture(scope="module")
def detector(folder):
    return Mask2FormerDetector.from_pretrained(folder)


def run(detector: Mask2FormerDetector, name: str) -> tuple[torch.Tensor, torch.Tensor, Instances]:
    """Class logits (1, Q, C + 1), mask logits (1, Q, h, w) and detections of a recorded item."""
    prepared = preprocess(open_image(name), tuple(load_items()[name]["img_scale"]))
    class_logits, mask_logits = detector.forward(prepared.pixels)
    instances = postprocess(
        class_logits[0],
        mask_logits[0],
        padded_size=prepared.padded_size,
        resized_size=prepared.resized_size,
        original_size=prepared.original_size,
    )
    return class_logits, mask_logits, instances


@pytest.fixture(scope="module")
def results(detector):
    return {name: run(detector, name) for name in SMALL_ITEMS}


def largest_difference(ours, official):
    return (ours - official).abs().max().item()


def match(instances: Instances, expected: dict[str, torch.Tensor]) -> torch.Tensor:
    """Our place of every official detection; both must find the same queries and labels."""
    ours = list(zip(instances.queries.tolist(), instances.labels.tolist(), strict=True))
    official = zip(expected["det_queries"].tolist(), expected["det_labels"].tolist(), strict=True)
    official = list(official)
    assert len(ours) == len(set(ours)) == 100
    assert set(ours) == set(official)
    return torch.tensor([ours.index(pair) for pair in official])


def test_the_weights_are_those_of_the_recorded_run(weights):
    _, rule = load_layout_and_rule()
    digest = hashlib.sha256()
    for value in weights.values():
        if value.is_floating_point():
            digest.update(value.numpy().tobytes())
    assert digest.hexdigest() == rule["sha256_all_float_tensors_in_layout_order_little_endian"]


@pytest.mark.parametrize("name", SMALL_ITEMS)
def test_logits_equal_the_official_ones(results, name):
    class_logits, mask_logits, _ = results[name]
    expected = load_tensors(name)
    # Measured: 1.5e-5 class logits, 3.7e-5 mask logits (all of them, before rows were left out).
    assert largest_difference(class_logits, expected["class_queries_logits"]) < 1e-4
    half = mask_logits[:, :, ::2, ::2]
    assert largest_difference(half, expected["masks_queries_logits_half"]) < 3e-4


@pytest.mark.parametrize("name", SMALL_ITEMS)
def test_detections_equal_the_official_ones(results, name):
    instances = results[name][2]
    expected = load_tensors(name)
    place = match(instances, expected)
    # Measured: boxes equal; scores 3.1e-5, where one pixel of a mask differs.
    assert largest_difference(instances.boxes[place], expected["det_boxes"]) <= 1
    assert largest_difference(instances.scores[place], expected["det_scores"]) < 3e-4
    for limit in ("0.3", "0.9"):
        num_above = (instances.scores > float(limit)).sum().item()
        assert num_above == load_items()[name][f"above_{limit}"]
    counts = {str(label): count for label, count in enumerate(instances.labels.bincount()) if count}
    assert counts == load_items()[name]["detections_per_class"]


@pytest.mark.parametrize("name", SMALL_ITEMS)
def test_masks_equal_the_official_ones(results, name):
    masks = results[name][2].masks
    expected = load_tensors(name)
    bits = torch.arange(7, -1, -1)
    official = (expected["query_masks_packed"][:, :, None] >> bits & 1).bool().flatten(1)
    official = official[expected["det_queries"].long()].unflatten(1, masks.shape[1:])
    place = match(results[name][2], expected)
    # Measured: 1 pixel of img0, none of img1. A mask is counted once however many labels it has.
    differing = {
        query: (masks[ours] != theirs).sum().item()
        for query, ours, theirs in zip(
            expected["det_queries"].tolist(), place.tolist(), official, strict=True
        )
    }
    assert sum(differing.values()) <= 10
    assert largest_difference(official.flatten(1).sum(1), expected["det_areas"]) == 0


@pytest.mark.slow
def test_a_whole_image_of_800_by_800_gives_the_official_detections(detector):
    class_logits, mask_logits, instances = run(detector, "full")
    expected = load_tensors("full")
    # Measured with one thread: 2.9e-4 class logits; masks 3.1e-4 at most and 2.7e-5 in the median
    # over queries; scores 6.5e-6, boxes equal, areas 2 pixels. Another order of adding up may flip
    # a bit of an attention mask, which moves a few queries by 2e-3.
    assert largest_difference(class_logits, expected["class_queries_logits"]) < 5e-3
    sampled = mask_logits[0, :, 4::8, 4::8]
    per_query = (sampled - expected["masks_queries_logits_sub"][0]).abs().flatten(1).amax(dim=1)
    assert per_query.median() < 2e-4
    assert (per_query > 1e-3).sum() <= 5
    place = match(instances, expected)
    assert largest_difference(instances.boxes[place], expected["det_boxes"]) <= 1
    assert largest_difference(instances.scores[place], expected["det_scores"]) < 1e-3
    areas = instances.masks[place].flatten(1).sum(dim=1)
    assert largest_difference(areas, expected["det_areas"]) <= 20


def test_detect_gives_every_instance_under_its_geneval_name(detector, monkeypatch):
    scale = tuple(load_items()["img0"]["img_scale"])
    monkeypatch.setattr("eval.mask2former.preprocess", lambda image: preprocess(image, scale))
    found = detector.detect(open_image("img0"))
    expected = load_tensors("img0")
    labels = expected["det_labels"].tolist()
    assert {name: len(things) for name, things in found.items()} == {
        CLASS_NAMES[label]: labels.count(label) for label in set(labels)
    }
    best = max((thing for things in found.values() for thing in things), key=lambda t: t.score)
    index = expected["det_scores"].argmax().item()
    assert best in found[CLASS_NAMES[labels[index]]]
    assert best.score == pytest.approx(expected["det_scores"][index].item(), abs=3e-4)
    assert best.box == tuple(expected["det_boxes"][index].tolist())
    assert best.mask.shape == (96, 128)
    assert abs(best.mask.sum() - expected["det_areas"][index].item()) <= 10


def test_the_folder_tells_where_its_weights_come_from(detector, folder, checkpoint):
    source = json.loads((folder / "config.json").read_text())[SOURCE_KEY]
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert source == {"file": checkpoint.name, "sha256": digest}
    assert detector.fingerprint == digest
    assert detector.name == f"{checkpoint.stem} (not the official weights)"
    assert detector.class_names == CLASS_NAMES


def link_model(folder, target, **changes):
    """The folder's config with `changes`, and a link to its weights."""
    config = json.loads((folder / "config.json").read_text()) | changes
    target.mkdir(exist_ok=True)
    (target / "config.json").write_text(json.dumps(config))
    (target / "model.safetensors").symlink_to(folder / "model.safetensors")
    return target


def test_the_official_file_gives_its_name_alone(folder, tmp_path):
    source = {"file": f"{STEM}-743b7d99.pth", "sha256": "743b7d99" + "0" * 56}
    linked = link_model(folder, tmp_path, **{SOURCE_KEY: source})
    detector = Mask2FormerDetector.from_pretrained(linked)
    assert detector.name == f"{STEM}-743b7d99"
    assert detector.fingerprint == source["sha256"]


def test_weights_of_no_recorded_file_are_labelled_and_told_apart(folder, tmp_path):
    linked = link_model(folder, tmp_path / "from-the-hub", **{SOURCE_KEY: None})
    detector = Mask2FormerDetector.from_pretrained(linked)
    assert detector.name == "from-the-hub (not the official weights)"
    content = (folder / "model.safetensors").read_bytes()
    assert detector.fingerprint == hashlib.sha256(content).hexdigest()


def test_a_folder_that_does_not_fit_is_refused_by_name(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights.pop("class_predictor.weight")
    weights |= {"extra": torch.zeros(1), "class_predictor.bias": torch.zeros(134)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = "missing class_predictor.weight; unknown extra; misshapen class_predictor.bias;"
    with pytest.raises(ValueError, match=message):
        Mask2FormerDetector.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # large


def test_the_tables_that_older_releases_store_are_no_unknown_weights(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    weights = load_file(folder / "model.safetensors")
    tables = [key for key in weights if key.endswith("relative_position_bias_table")]
    assert len(tables) == 24
    for key in tables:
        weights[key.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.int64)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    older = Mask2FormerDetector.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # large
    buffers = dict(older.model.named_buffers())
    indices = [value for key, value in buffers.items() if key.endswith("relative_position_index")]
    assert len(indices) == 24
    assert all(index.any() for index in indices)  # computed, not read


def test_the_conversion_records_what_the_self_test_expects(detector, folder):
    recorded, found = read_record(folder), detector.see_known_picture()
    assert torch.equal(recorded.class_logits, found.class_logits)
    assert torch.equal(recorded.mask_logits, found.mask_logits)


def test_a_detector_that_computes_something_else_is_refused_on_loading(folder, tmp_path):
    linked = link_model(folder, tmp_path)
    recorded = read_record(folder)
    write_record(KnownOutput(recorded.class_logits + 0.01, recorded.mask_logits), linked)
    message = r"self-test on cpu: its class logits differ by 0\.01 from those that its weights"
    with pytest.raises(RuntimeError, match=message):
        Mask2FormerDetector.from_pretrained(linked)


def test_without_a_record_the_cpu_of_this_machine_says_what_is_right(folder, tmp_path, monkeypatch):
    linked = link_model(folder, tmp_path)
    assert not (linked / RECORD_FILE).exists()
    Mask2FormerDetector.from_pretrained(linked)
    honest = Mask2FormerDetector.see_known_picture
    seen = []

    def see_worse_each_time(detector):
        output = honest(detector)
        seen.append(KnownOutput(output.class_logits, output.mask_logits * (1 + 0.01 * len(seen))))
        return seen[-1]

    monkeypatch.setattr(Mask2FormerDetector, "see_known_picture", see_worse_each_time)
    with pytest.raises(RuntimeError, match="fails its self-test on cpu: its mask logits differ by"):
        Mask2FormerDetector.from_pretrained(linked)
    assert len(seen) == 2


def test_weights_that_were_only_initialised_are_refused(folder, tmp_path):
    config = Mask2FormerConfig.from_pretrained(folder)
    torch.manual_seed(0)
    Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"its confidence in what it sees is 0\.0\d\d, expected"):
        Mask2FormerDetector.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # large


def test_float32_is_not_reduced_while_the_network_runs(detector, monkeypatch):
    seen = []

    def remember(pixel_values):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        raise InterruptedError

    monkeypatch.setattr(detector.model, "forward", remember)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(InterruptedError):
            detector.detect(Image.new("RGB", (8, 8)))
        assert seen == [("highest", False)]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before[0])
    assert torch.backends.cudnn.allow_tf32 == before[1]


def test_labels_in_the_spelling_of_older_files_are_accepted():
    older = {"motorcycle": "motorbike", "airplane": "aeroplane", "tv": "tvmonitor"}
    older |= {"couch": "sofa", "potted plant": "pottedplant", "dining table": "diningtable"}
    names = [older.get(name, name) for name in coco_names()]
    check_labels(dict(enumerate(names)), source="test")


def test_a_model_of_other_labels_is_refused(folder, tmp_path):
    names = ["background", *coco_names()[:79]]
    labels = {str(index): name for index, name in enumerate(names)}
    link_model(folder, tmp_path, id2label=labels)
    with pytest.raises(ValueError, match="label 0 is 'background', expected 'person'"):
        Mask2FormerDetector.from_pretrained(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "unitok"}')
    with pytest.raises(ValueError, match="type 'unitok', expected 'mask2former'"):
        Mask2FormerDetector.from_pretrained(tmp_path)


def test_a_folder_without_weights_is_refused(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        Mask2FormerDetector.from_pretrained(tmp_path)


def test_weights_that_are_not_converted_yet_are_refused_with_the_command(tmp_path):
    (tmp_path / "official.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"python -m eval\.geneval convert-detector"):
        Mask2FormerDetector.from_pretrained(tmp_path / "official.pth")


def test_an_unknown_name_is_refused():
    with pytest.raises(FileNotFoundError, match=r"no detector called 'yolo'; convert the official"):
        Mask2FormerDetector.from_pretrained("yolo")


def test_a_hub_model_out_of_reach_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"download it once with: hf download {HUB_NAME}"):
        Mask2FormerDetector.from_pretrained(HUB_NAME)
