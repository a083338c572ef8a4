"""What changes with the step."""

import pytest

from train.schedules import cosine_rate, ramp


def test_the_learning_rate_warms_up_and_decays_to_its_share() -> None:
    rates = [
        cosine_rate(step, 100, peak=0.01, warmup_steps=2, final_ratio=0.1) for step in range(101)
    ]
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == pytest.approx(0.01)
    assert rates[100] == pytest.approx(0.001)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_ramp_ends_at_one_and_stays_there() -> None:
    assert [ramp(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert ramp(0, 0) == 1
