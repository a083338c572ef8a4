"""The detector's self-test: which outputs may judge, on what picture, and what a record holds."""

import hashlib

import pytest
import torch

from eval.detector_self_test import (
    MAX_DIFFERENCE,
    RECORD_FILE,
    KnownOutput,
    check_output,
    known_pixels,
    read_record,
    write_record,
)

CPU = torch.device("cpu")


def make_output(gain=4.0):
    """Logits of 100 queries with the spread of trained weights, or another one."""
    generator = torch.Generator().manual_seed(0)
    return KnownOutput(
        gain * torch.randn(100, 81, generator=generator),
        gain * torch.randn(100, 32, 48, generator=generator),
    )


def check(found, expected):
    check_output(found, expected, detector="mask2former", device=CPU)


def test_the_known_picture_never_changes():
    # Records of conversions are of it; the resizing is exact on every machine.
    pixels = known_pixels()
    assert pixels.shape == (1, 3, 128, 192)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert digest == "37f9329da8b2a246c8255db030f0292200bfa2aa9181aa9e996d52352af18e53"


def test_the_same_logits_and_those_with_other_rounding_pass():
    output = make_output()
    check(output, output)
    check(KnownOutput(output.class_logits + 1e-4, output.mask_logits - 1e-4), output)


def test_a_few_queries_may_differ_by_more():
    output = make_output()
    changed = output.class_logits.clone()
    changed[:5] += 0.1
    check(KnownOutput(changed, output.mask_logits), output)


@pytest.mark.parametrize("name", ["class_logits", "mask_logits"])
def test_logits_that_differ_in_most_queries_fail(name):
    output = make_output()
    changed = {**vars(output), name: vars(output)[name] + 2 * MAX_DIFFERENCE}
    message = (
        f"^the detector mask2former fails its self-test on cpu: its {name.replace('_', ' ')} "
        r"differ by 0\.002 from those that its weights should give, expected at most 0\.001; use"
    )
    with pytest.raises(RuntimeError, match=message):
        check(KnownOutput(**changed), output)


def test_collapsed_confidences_fail_even_where_they_are_recorded_so():
    output = make_output(gain=0.01)
    with pytest.raises(RuntimeError, match=r"its confidence in what it sees is 0\.013, expected"):
        check(output, output)


def test_logits_that_are_no_numbers_fail():
    output = make_output()
    broken = KnownOutput(output.class_logits * float("nan"), output.mask_logits)
    with pytest.raises(RuntimeError, match="its confidence in what it sees is nan"):
        check(broken, output)
    broken = KnownOutput(output.class_logits, output.mask_logits * float("nan"))
    with pytest.raises(RuntimeError, match="its mask logits differ by nan"):
        check(broken, output)


def test_logits_of_another_shape_fail():
    output = make_output()
    other = KnownOutput(output.class_logits[:, :80], output.mask_logits)
    with pytest.raises(RuntimeError, match="its class logits differ by inf"):
        check(output, other)


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert read_record(tmp_path) is None
    output = make_output()
    write_record(output, tmp_path)
    read = read_record(tmp_path)
    assert torch.equal(read.class_logits, output.class_logits)
    assert torch.equal(read.mask_logits, output.mask_logits)


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / RECORD_FILE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="no record of a conversion; convert the detector again"):
        read_record(tmp_path)
