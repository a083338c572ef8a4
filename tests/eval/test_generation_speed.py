"""Drawing measured in variants that do the same."""

import numpy as np
import pytest

from eval import bench
from eval.generation_speed import (
    VARIANTS,
    GenerationRequest,
    GenerationSpeed,
    agreement,
    build_model,
    measure,
)


def test_our_drawing_gives_the_codes_of_the_plain_loop() -> None:
    request = GenerationRequest("nano", batch_size=2, repeats=1)
    plain = measure(request, "plain")
    ours = measure(request, "float32", codes=plain.codes)
    assert plain.codes.shape == (2, 16, 8)
    assert agreement(plain, ours) == 1
    assert ours.forced_agreement == 1
    assert plain.forced_agreement is None
    assert (ours.num_sub_codes, ours.seconds > 0) == (128, True)


def test_rows_of_the_table_are_ratios_to_the_plain_loop() -> None:
    codes = np.zeros((2, 16, 8), dtype=np.int64)
    other = codes.copy()
    other[0, 0, 0] = 1
    speeds = {
        "plain": GenerationSpeed(8.0, 0.5, 1.0, codes, 128, None),
        "float32": GenerationSpeed(2.0, 0.25, 1.0, other, 128, 0.995),
    }
    plain, ours = bench.generation_rows(speeds, 2, bandwidth=2**30 * 16 / 1e9)
    assert plain == ["2", "plain", "4.00", "32", "1.00", "0.500", "100.0%", "", "12%"]
    assert ours == ["2", "float32", "1.00", "128", "4.00", "0.250", "99.6%", "99.5%", "50%"]


def test_shapes_and_variants_are_checked() -> None:
    with pytest.raises(ValueError, match="shape must be nano, 200m, 1b, 7b, got '3b'"):
        build_model(GenerationRequest("3b"))
    with pytest.raises(ValueError, match="nano draws whole pictures"):
        build_model(GenerationRequest("nano", num_rows=1))
    with pytest.raises(ValueError, match="variant must be one of plain, float32, bfloat16, got"):
        measure(GenerationRequest(), "float8")


def test_the_command_prints_every_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.zeros((1, 16, 8), dtype=np.int64)
    monkeypatch.setattr(
        "eval.generation_speed.measure_apart",
        lambda request, variant, codes=None: GenerationSpeed(
            float(request.batch_size), 0.5, 1.0, np.zeros((1, 16, 8)), 128, None
        ),
    )
    said = bench.measure_generation(GenerationRequest("nano", 4))
    assert tuple(said) == VARIANTS
    assert all(np.array_equal(speed.codes, codes) for speed in said.values())
