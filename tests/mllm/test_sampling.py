import pytest
import torch

from mllm.sampling import (
    SamplingParams,
    SubCodeSampler,
    build_noise,
    filter_logits,
    greedy,
    guide,
    keep_top_k,
    keep_top_p,
    sample,
)

PLAIN = SamplingParams(guidance_scale=1)


def test_guidance_goes_beyond_the_conditional_logits():
    conditional, unconditional = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    assert torch.equal(guide(conditional, unconditional, 1), conditional)
    assert torch.equal(guide(conditional, unconditional, 3), torch.tensor([[3.0, -1.0]]))


def test_top_k_keeps_the_k_largest():
    kept = keep_top_k(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), 2)
    assert kept.tolist() == [[-float("inf"), 3.0, -float("inf"), 2.0]]


def test_top_k_larger_than_the_codebook_keeps_everything():
    logits = torch.randn(2, 4)
    assert torch.equal(keep_top_k(logits, 9), logits)


def test_top_p_keeps_the_fewest_that_reach_p():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    assert keep_top_p(logits, 0.7).isfinite().tolist() == [[False, True, False, True]]
    assert keep_top_p(logits, 0.5).isfinite().tolist() == [[False, True, False, False]]
    assert keep_top_p(logits, 0.01).isfinite().tolist() == [[False, True, False, False]]


def test_filters_come_after_the_temperature():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    # At temperature 0.25 the largest entry has 93 % of the probability.
    kept = filter_logits(logits, temperature=0.25, top_p=0.9)
    assert kept.isfinite().tolist() == [[False, True, False, False]]


def test_temperature_zero_is_greedy():
    logits = torch.randn(5, 7)
    params = SamplingParams(guidance_scale=1, temperature=0)
    assert torch.equal(sample(logits, torch.rand(5), params), greedy(logits))


def test_samples_follow_the_distribution():
    probs = torch.tensor([0.1, 0.2, 0.3, 0.4])
    rows = probs.log().expand(20000, 4)
    counts = sample(rows, torch.rand(20000), PLAIN).bincount(minlength=4)
    # Four standard deviations of a share are 0.014.
    torch.testing.assert_close(counts / 20000, probs, atol=0.015, rtol=0)


def test_an_entry_without_probability_is_never_drawn():
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]]).expand(3, 5)
    noise = torch.tensor([0.0, 0.5, 1 - 2**-24])
    assert sample(logits, noise, PLAIN).tolist() == [1, 3, 3]


def test_noise_depends_on_the_seed_alone():
    together, alone = build_noise([5, 7], 6, 4), build_noise([7], 6, 4)
    assert together.shape == (2, 6, 4)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_both_rows_of_a_picture_get_the_same_sub_code():
    sampler = SubCodeSampler([SamplingParams(guidance_scale=2)] * 2, torch.device("cpu"))
    codes = sampler(torch.randn(4, 9), torch.rand(2))
    assert torch.equal(codes[:2], codes[2:])


def test_pictures_of_one_batch_may_be_sampled_differently():
    settings = [
        SamplingParams(guidance_scale=2),
        PLAIN,
        SamplingParams(guidance_scale=3, temperature=0),
        SamplingParams(guidance_scale=2),
    ]
    sampler = SubCodeSampler(settings, torch.device("cpu"))
    logits, noise = torch.randn(7, 9), torch.rand(4)
    codes = sampler(logits, noise)
    assert torch.equal(codes[4:], codes[[0, 2, 3]])
    unconditional = {0: 4, 2: 5, 3: 6}
    for picture, params in enumerate(settings):
        rows = logits[[picture]]
        if picture in unconditional:
            rows = guide(rows, logits[[unconditional[picture]]], params.guidance_scale)
        assert codes[picture] == sample(rows, noise[[picture]], params)[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"guidance_scale": -1}, "guidance_scale must be at least 0, got -1"),
        ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
        ({"top_k": 0}, "top_k must be at least 1, or None, got 0"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], or None, got 0"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\], or None, got 1.5"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams(**values)
