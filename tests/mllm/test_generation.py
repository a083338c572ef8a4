import pytest
import torch

from mllm.generation import default_sampling, generate_codes, set_default_sampling
from mllm.sampling import SamplingParams

SAMPLED = SamplingParams(guidance_scale=3)
GREEDY = SamplingParams(guidance_scale=1, temperature=0)


def build_contexts(num_pictures: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Conditional rows of different lengths, then as many unconditional ones, ending in 3."""
    rows = [[1, *range(5, 6 + index), 3] for index in range(num_pictures)]
    rows += [[1, 30, 3]] * num_pictures
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return ids, (ids != 0).long()


def test_sampling_matches_teacher_forcing(tiny_model):
    ids = torch.tensor([[1, 5, 6, 3]])
    codes = generate_codes(tiny_model, ids, sampling=GREEDY)
    visual = torch.full((1, 6), tiny_model.config.image_token_id)
    whole = torch.cat([ids, visual], dim=1)
    hidden = tiny_model.decoder(inputs_embeds=tiny_model.embed(whole, codes)).last_hidden_state
    logits = tiny_model.visual_head(hidden[0, 3:-1], codes[0])
    assert torch.equal(logits.argmax(-1), codes[0])


def test_guided_sampling_matches_teacher_forcing(tiny_model):
    ids = torch.tensor([[1, 5, 6, 3], [1, 8, 9, 3]])
    sampling = SamplingParams(guidance_scale=3, temperature=0)
    codes = generate_codes(tiny_model, ids, sampling=sampling)
    visual = torch.full((2, 6), tiny_model.config.image_token_id)
    whole = torch.cat([ids, visual], dim=1)
    embeds = tiny_model.embed(whole, codes.repeat(2, 1, 1))
    hidden = tiny_model.decoder(inputs_embeds=embeds).last_hidden_state[:, 3:-1]
    conditional, unconditional = (tiny_model.visual_head(half, codes[0]) for half in hidden)
    guided = unconditional + 3 * (conditional - unconditional)
    assert torch.equal(guided.argmax(-1), codes[0])


def test_a_picture_does_not_depend_on_its_neighbours(tiny_model):
    ids, mask = build_contexts(3)
    seeds = [11, 12, 13]
    together = generate_codes(tiny_model, ids, mask, sampling=SAMPLED, seeds=seeds)
    assert together.shape == (3, 6, 4)
    assert together.dtype == torch.int64
    for index, seed in enumerate(seeds):
        rows = [index, index + 3]
        alone = generate_codes(tiny_model, ids[rows], mask[rows], sampling=SAMPLED, seeds=[seed])
        assert torch.equal(alone[0], together[index])


def test_the_seed_decides_the_picture(tiny_model):
    ids, mask = build_contexts(1)
    first, again, other = (
        generate_codes(tiny_model, ids, mask, sampling=SAMPLED, seeds=[seed]) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_seeds_torchs_global_one_decides(tiny_model):
    ids, mask = build_contexts(1)
    pictures = []
    for _ in range(2):
        torch.manual_seed(3)
        pictures.append(generate_codes(tiny_model, ids, mask, sampling=SAMPLED))
    assert torch.equal(*pictures)


def test_earlier_pictures_of_the_context_are_read(tiny_model):
    visual = [tiny_model.config.image_token_id] * 6
    ids = torch.tensor([[1, *visual, 5, 3], [0] * 6 + [1, 30, 3]])
    mask = (ids != 0).long()
    earlier = torch.randint(0, 32, (2, 1, 6, 4))
    drawn = [
        generate_codes(tiny_model, ids, mask, codes, sampling=SAMPLED, seeds=[1])
        for codes in earlier
    ]
    assert not torch.equal(*drawn)


def test_the_official_shortcut_draws_something_else(tiny_model):
    ids = torch.tensor([[1, 5, 6, 3]])
    cached, single = (
        generate_codes(tiny_model, ids, sampling=GREEDY, projection=projection)
        for projection in ("cached", "single")
    )
    assert torch.equal(cached[:, 0], single[:, 0])
    assert not torch.equal(cached, single)


def test_an_unknown_projection_is_refused(tiny_model):
    with pytest.raises(ValueError, match="projection must be cached or single, got 'lonely'"):
        generate_codes(tiny_model, torch.tensor([[1, 3]]), sampling=GREEDY, projection="lonely")


def test_progress_counts_visual_tokens(tiny_model):
    seen = []
    generate_codes(
        tiny_model,
        torch.tensor([[1, 3]]),
        sampling=GREEDY,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step, 6) for step in range(1, 7)]


def test_bfloat16_draws(tiny_model):
    ids, mask = build_contexts(2)
    codes = generate_codes(tiny_model.to(torch.bfloat16), ids, mask, sampling=SAMPLED, seeds=[1, 2])
    assert codes.shape == (2, 6, 4)


def test_a_model_brings_its_own_sampling(tiny_model, tmp_path):
    assert default_sampling(tiny_model) == SamplingParams()
    own = SamplingParams(guidance_scale=3.0, top_k=8)
    set_default_sampling(tiny_model, own)
    tiny_model.save_pretrained(tmp_path)
    loaded = type(tiny_model).from_pretrained(tmp_path)
    assert default_sampling(loaded) == own
    assert loaded.generation_config.eos_token_id == 2
    assert loaded.generation_config.guidance_scale is None


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[1, 5, 3]], None, "needs conditional and as many unconditional rows, got 1 rows"),
        ([[1, 5, 6], [1, 5, 3]], None, r"must end in begin-of-image \(id 3\), got ids \[3, 6\]"),
        ([[1, 5, 3], [1, 3, 3]], [[1, 1, 1], [1, 1, 0]], "must be padded on the left"),
        ([[1, 5, 3], [1, 3, 3]], [[1, 1, 1], [1, 0, 1]], "must be padded on the left"),
        ([[1, 5, 3]], [[1, 1]], r"attention_mask must have the shape of input_ids \(1, 3\)"),
        ([[1] * 130 + [3]] * 2, None, "context and picture take 137 positions, the model has 128"),
    ],
)
def test_contexts_that_no_picture_can_follow_are_refused(tiny_model, ids, mask, message):
    mask = None if mask is None else torch.tensor(mask)
    with pytest.raises(ValueError, match=message):
        generate_codes(tiny_model, torch.tensor(ids), mask, sampling=SAMPLED)


def test_each_picture_needs_a_seed(tiny_model):
    ids, mask = build_contexts(2)
    with pytest.raises(ValueError, match="one seed for each of 2 pictures, got 1"):
        generate_codes(tiny_model, ids, mask, sampling=SAMPLED, seeds=[1])


def test_a_model_in_training_does_not_draw(tiny_model):
    with pytest.raises(ValueError, match="training mode"):
        generate_codes(tiny_model.train(), torch.tensor([[1, 3]]), sampling=GREEDY)
