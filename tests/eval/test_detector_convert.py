"""Official detector weights become transformers', and nothing but those is accepted."""

import pickle

import numpy as np
import pytest
import torch

from eval.detector import coco_names
from eval.detector_convert import convert_detector, convert_state_dict
from eval.mmdet_layout import merging_order, official_moves, relative_position_index
from tests.eval.detector_goldens import load_layout_and_rule

BLOCK = "backbone.stages.2.blocks.17."
SWIN_BLOCK = "model.pixel_level_module.encoder.encoder.layers.2.blocks.17."
DECODER_LAYER = "model.transformer_module.decoder.layers.3."
INDEX_KEY = f"{BLOCK}attn.w_msa.relative_position_index"


@pytest.fixture
def weights():
    """Tensors of the official layout that hold a single number each: no memory."""
    layout, _ = load_layout_and_rule()
    index = torch.from_numpy(relative_position_index())
    return {
        key: index if dtype == "int64" else torch.zeros(()).expand(shape)
        for key, (shape, dtype) in layout.items()
    }


def test_the_official_layout_is_understood_completely():
    layout, _ = load_layout_and_rule()
    moves = official_moves()
    assert [move.official for move in moves] == list(layout)
    assert [list(move.shape) for move in moves] == [shape for shape, _ in layout.values()]
    assert [move.is_index for move in moves] == [kind == "int64" for _, kind in layout.values()]


def test_625_tensors_become_757_with_names_of_their_own(weights):
    ours = convert_state_dict(weights, source="test")
    assert sum(not move.is_index for move in official_moves()) == 625
    assert len(ours) == 757
    num_values = sum(v.numel() for v in weights.values() if v.is_floating_point())
    assert sum(value.numel() for value in ours.values()) == num_values == 68_739_547


def test_the_table_of_relative_positions_is_the_official_one():
    _, rule = load_layout_and_rule()
    table = relative_position_index()
    assert table.shape == (49, 49)
    assert table[0].tolist() == rule["relative_position_index_row0"]
    assert table[48].tolist() == rule["relative_position_index_row48"]


def test_patch_merging_finds_the_same_pixel_and_channel_on_both_sides():
    num_channels = 3
    order = merging_order(num_channels)
    for channel, row, column in np.ndindex(num_channels, 2, 2):
        ours = (2 * column + row) * num_channels + channel
        assert order[ours] == 4 * channel + 2 * row + column


def test_patch_merging_permutes_its_norm_and_the_columns_of_its_reduction(weights):
    prefix = "backbone.stages.0.downsample."
    row = torch.arange(384.0)
    weights[f"{prefix}norm.weight"] = weights[f"{prefix}norm.bias"] = row
    weights[f"{prefix}reduction.weight"] = row.expand(192, 384)
    ours = convert_state_dict(weights, source="test")
    merged = "model.pixel_level_module.encoder.encoder.layers.0.downsample."
    expected = row[torch.from_numpy(merging_order(96))]
    for name in ("norm.weight", "norm.bias", "reduction.weight"):
        assert torch.equal(ours[merged + name], expected.expand_as(ours[merged + name]))


def test_fused_projections_are_split_into_query_key_and_value(weights):
    weights[f"{BLOCK}attn.w_msa.qkv.bias"] = torch.arange(3.0).repeat_interleave(384)
    official = "panoptic_head.transformer_decoder.layers.3.attentions.1.attn."
    weights[f"{official}in_proj_bias"] = torch.arange(3.0).repeat_interleave(256)
    ours = convert_state_dict(weights, source="test")
    for value, name in enumerate(("query", "key", "value")):
        assert (ours[f"{SWIN_BLOCK}attention.self.{name}.bias"] == value).all()
        assert (ours[f"{DECODER_LAYER}self_attn.{name[0]}_proj.bias"] == value).all()
    assert ours[f"{DECODER_LAYER}cross_attn.in_proj_bias"].shape == (768,)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda weights: weights.pop("panoptic_head.cls_embed.bias"),
            "missing panoptic_head.cls_embed.bias;",
        ),
        (lambda weights: weights.pop(INDEX_KEY), f"missing {INDEX_KEY};"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unknown extra;"),
        (
            # The panoptic model of older releases has the same name and 134 rows.
            lambda weights: weights.update({"panoptic_head.cls_embed.bias": torch.zeros(134)}),
            r"panoptic_head.cls_embed.bias is \(134,\), expected \(81,\);",
        ),
        (
            lambda weights: weights.update(
                {"panoptic_head.cls_embed.bias": torch.zeros(81).half()}
            ),
            "panoptic_head.cls_embed.bias in test is torch.float16, expected torch.float32;",
        ),
        (
            lambda weights: weights.update({INDEX_KEY: weights[INDEX_KEY].float()}),
            f"{INDEX_KEY} in test is torch.float32, expected torch.int64;",
        ),
        (
            lambda weights: weights.update({INDEX_KEY: weights[INDEX_KEY].flip(0)}),
            f"{INDEX_KEY} in test is not the table of a 7 x 7 window;",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(weights, edit, message):
    edit(weights)
    with pytest.raises(ValueError, match=message):
        convert_state_dict(weights, source="test")


def save(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def test_a_file_with_a_wrong_key_is_refused_and_nothing_is_written(weights, tmp_path):
    weights = {key: value.clone() for key, value in list(weights.items())[:3]}
    path = save({"meta": {}, "state_dict": weights | {"extra": torch.zeros(1)}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth do not fit.*missing backbone\.patch_embed\.norm"):
        convert_detector(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_its_name_does_not_belong_to_is_refused(tmp_path):
    path = save({"state_dict": {}}, tmp_path / "mask2former_20220504_001756-743b7d99.pth")
    with pytest.raises(ValueError, match="its SHA-256 begins with 743b7d99, got "):
        convert_detector(path, tmp_path / "out")


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*a\.pth"):
        convert_detector(tmp_path / "a.pth", tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_is_overwritten_only_by_force(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match="pass --force to overwrite it"):
        convert_detector(tmp_path / "a.pth", tmp_path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    for path in (save({"state_dict": Trap()}, tmp_path / "old.pth"), tmp_path / "plain.pth"):
        if not path.exists():
            path.write_bytes(pickle.dumps({"state_dict": Trap()}, protocol=2))
        with pytest.raises(ValueError, match=r"safely: it holds more than plain values \(_pytest"):
            convert_detector(path, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"no torch file at all"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match="no checkpoint that can be read safely: it is no whole"):
        convert_detector(tmp_path / "a.pth", tmp_path / "out")


def test_a_cut_file_is_refused(tmp_path):
    path = save({"state_dict": {"a": torch.zeros(1000)}}, tmp_path / "a.pth")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="no checkpoint that can be read safely: it is no whole"):
        convert_detector(path, tmp_path / "out")


@pytest.mark.parametrize(
    "content", [[], {"state_dict": {}}, {"state_dict": {"a": 1}}, {"model": {"a": torch.zeros(1)}}]
)
def test_another_torch_file_is_refused(tmp_path, content):
    path = save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="expected state_dict, a dict of tensors"):
        convert_detector(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", *coco_names()[1:]), "label 0 is 'cat', expected 'person'"),
        (coco_names()[:79], "there are 79 labels, expected 80"),
    ],
)
def test_a_checkpoint_of_other_classes_is_refused(tmp_path, classes, message):
    content = {"meta": {"CLASSES": classes}, "state_dict": {"a": torch.zeros(1)}}
    with pytest.raises(ValueError, match=message):
        convert_detector(save(content, tmp_path / "a.pth"), tmp_path / "out")
