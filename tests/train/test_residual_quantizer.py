"""The residual quantizer stands where the multi-codebook one stands."""

import pytest
import torch

from train.residual_quantizer import ResidualQuantizer, use_residual_quantizer
from unitok.config import UniTokConfig
from unitok.model import UniTok

SIZES = UniTokConfig(
    image_size=32, num_codebooks=4, codebook_size=16, codebook_dim=8, width=32, depth=1,
    num_heads=2, conv_widths=(8, 16), conv_depths=(1, 1), decoder_expand_ratio=2, feature_dim=16,
    text_width=16, text_heads=2, text_layers=1, text_vocab_size=520, text_context_length=8,
)  # fmt: skip


@pytest.fixture
def latents_BLC() -> torch.Tensor:
    return torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def quantizer(latents_BLC: torch.Tensor) -> ResidualQuantizer:
    """One that has seen some latents."""
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(4, 64, latent_dim=32)
    for _ in range(3):
        quantizer(latents_BLC)
    return quantizer


def test_looking_codes_up_gives_what_training_quantized_to(
    quantizer: ResidualQuantizer, latents_BLC: torch.Tensor
) -> None:
    output = quantizer.eval()(latents_BLC)
    codes_BLK = quantizer.encode(latents_BLC)
    assert torch.equal(codes_BLK, output.codes)
    assert codes_BLK.shape == (3, 5, 4)
    assert codes_BLK.dtype == torch.int64
    # The largest error measured is 2.4e-7: sums in another order.
    torch.testing.assert_close(quantizer.lookup(codes_BLK), output.quantized, atol=2e-6, rtol=0)


def test_each_sub_code_brings_the_sum_nearer_to_the_latent(
    quantizer: ResidualQuantizer, latents_BLC: torch.Tensor
) -> None:
    codes_BLK = quantizer.encode(latents_BLC)
    entries_KBLC = quantizer.residual.get_codes_from_indices(codes_BLK)
    errors_K = (entries_KBLC.cumsum(0) - latents_BLC).square().flatten(1).mean(1)
    assert (errors_K[1:] < errors_K[:-1]).all()


def test_all_sub_codes_share_one_codebook(quantizer: ResidualQuantizer) -> None:
    books = [layer._codebook for layer in quantizer.residual.layers]
    assert all(book is books[0] for book in books)
    assert books[0].embed.shape == (1, 64, 32)


def test_the_gradient_passes_through_once(
    quantizer: ResidualQuantizer, latents_BLC: torch.Tensor
) -> None:
    latents_BLC.requires_grad_()
    quantizer(latents_BLC).quantized.sum().backward()
    assert torch.equal(latents_BLC.grad, torch.ones_like(latents_BLC))


def test_encoding_while_training_changes_nothing(
    quantizer: ResidualQuantizer, latents_BLC: torch.Tensor
) -> None:
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.train().encode(latents_BLC)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_a_model_gets_one_codebook_of_all_its_entries_and_learns() -> None:
    torch.manual_seed(0)
    model = use_residual_quantizer(UniTok(SIZES))
    assert model.quantizer.codebook_size == 4 * 16
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    output = model(pixels)
    (output.reconstruction.square().mean() + output.vq_loss).backward()
    learning = [weight for weight in model.encoder.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.any() for weight in learning)
    model.eval()
    codes = model.encode(pixels)
    model.quantizer.check_codes(codes)
    assert model.decode(codes).shape == pixels.shape
