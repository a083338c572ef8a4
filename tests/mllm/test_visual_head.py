import torch

from mllm.sampling import greedy
from mllm.visual_head import HeadCache, VisualHead


def build_hidden(model, num_positions: int) -> torch.Tensor:
    return torch.randn(num_positions, model.config.text_config.hidden_size)


def test_teacher_forcing_matches_sampling(tiny_model):
    head = tiny_model.visual_head
    hidden = build_hidden(tiny_model, 5)
    codes = head.generate(hidden, greedy)
    assert codes.shape == (5, 4)
    assert torch.equal(head(hidden, codes).argmax(-1), codes)


def test_logits_of_each_step_are_those_of_teacher_forcing(tiny_model):
    head = tiny_model.visual_head
    hidden = build_hidden(tiny_model, 3)
    seen = []

    def sampler(logits):
        seen.append(logits)
        return greedy(logits)

    codes = head.generate(hidden, sampler)
    # Measured 3e-6 on CPU in fp32.
    torch.testing.assert_close(torch.stack(seen, dim=1), head(hidden, codes), atol=1e-5, rtol=0)


def test_a_used_cache_gives_the_same_codes(tiny_model):
    head = tiny_model.visual_head
    first, second = build_hidden(tiny_model, 3), build_hidden(tiny_model, 3)
    cache = HeadCache(head)
    head.generate(first, greedy, cache=cache)
    assert torch.equal(head.generate(second, greedy, cache=cache), head.generate(second, greedy))


def test_a_sub_code_depends_only_on_those_before_it(tiny_model):
    head = tiny_model.visual_head
    hidden = build_hidden(tiny_model, 2)
    codes = torch.randint(0, 32, (2, 4))
    changed = codes.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 32
    before, after = head(hidden, codes), head(hidden, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_the_head_holds_no_table_of_text_embeddings(tiny_model):
    assert not any("embed_tokens" in name for name in tiny_model.visual_head.state_dict())


def test_one_codebook_needs_no_embedding(tiny_model):
    head = VisualHead(
        tiny_model.config.text_config, num_layers=1, num_codebooks=1, codebook_size=32
    ).eval()
    hidden = build_hidden(tiny_model, 3)
    codes = head.generate(hidden, greedy)
    assert torch.equal(head(hidden, codes).argmax(-1), codes)
