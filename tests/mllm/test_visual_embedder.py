import pytest
import torch

from unitok.quantizer import MultiCodebookQuantizer


def test_step_by_step_matches_the_whole_picture(tiny_model):
    embedder = tiny_model.visual_embedder
    codes = torch.randint(0, 32, (2, 6, 4))
    cache = embedder.build_cache(2, 6)
    steps = [embedder(codes[:, step : step + 1], cache) for step in range(6)]
    # Measured 3e-6 on CPU in fp32.
    torch.testing.assert_close(torch.cat(steps, dim=1), embedder(codes), atol=1e-5, rtol=0)


def test_a_visual_token_depends_only_on_those_before_it(tiny_model):
    codes = torch.randint(0, 32, (1, 6, 4))
    changed = codes.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 32
    before, after = tiny_model.visual_embedder(codes), tiny_model.visual_embedder(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_codebooks_are_no_parameters(tiny_model):
    assert not any("codebooks" in name for name, _ in tiny_model.named_parameters())
    assert "visual_embedder.quantizer.codebooks_KVD" in tiny_model.state_dict()


def test_the_model_takes_over_a_tokenizers_codebooks(tiny_model):
    quantizer = MultiCodebookQuantizer(4, 32, codebook_dim=4)
    tiny_model.adopt_tokenizer(quantizer, fingerprint="0123456789abcdef")
    codes = torch.randint(0, 32, (2, 6, 4))
    assert torch.equal(tiny_model.visual_embedder.quantizer.lookup(codes), quantizer.lookup(codes))
    assert tiny_model.config.tokenizer_fingerprint == "0123456789abcdef"


def test_codebooks_of_another_size_are_refused(tiny_model):
    quantizer = MultiCodebookQuantizer(4, 64, codebook_dim=4)
    with pytest.raises(ValueError, match=r"codebooks are \(4, 64, 4\), the model's are"):
        tiny_model.adopt_tokenizer(quantizer, fingerprint="0123456789abcdef")
