import pytest
import torch

from tests.unitok.conftest import TINY, build_tiny, random_pixels
from unitok.model import UniTok
from unitok.projection import AttentionProjection
from unitok.quantizer import MultiCodebookQuantizer

FROZEN = {"encoder.pos_embed"}


@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 16), (32, 80), (112, 48)])
def test_any_multiple_of_16_is_a_legal_side(tiny_model, height, width):
    pixels = random_pixels(1, height, width)
    grid = tiny_model.grid(pixels)
    codes = tiny_model.encode(pixels)
    assert grid == (height // 16, width // 16)
    assert codes.shape == (1, grid[0] * grid[1], TINY.num_codebooks)
    assert codes.dtype == torch.int64
    assert tiny_model.decode(codes, grid).shape == pixels.shape
    assert tiny_model(pixels).reconstruction.shape == pixels.shape


def test_codes_without_a_grid_form_a_square(tiny_model):
    codes = tiny_model.encode(random_pixels())
    assert torch.equal(tiny_model.decode(codes), tiny_model.decode(codes, (4, 4)))


def test_rows_of_the_grid_follow_the_rows_of_the_picture(tiny_model):
    codes = tiny_model.encode(random_pixels(1, 32, 64))
    tall, wide = tiny_model.decode(codes, (4, 2)), tiny_model.decode(codes, (2, 4))
    assert tall.shape[-2:] == (64, 32)
    assert wide.shape[-2:] == (32, 64)


@pytest.mark.parametrize("grid", [None, (2, 4), (-3, -2)])
def test_a_grid_that_does_not_hold_the_tokens_is_refused(tiny_model, grid):
    codes = torch.zeros(1, 6, TINY.num_codebooks, dtype=torch.int64)
    with pytest.raises(ValueError, match="6 visual tokens do not form a grid of"):
        tiny_model.decode(codes, grid)


def test_foreign_codes_are_refused_before_decoding(tiny_model):
    codes = torch.full((1, 16, TINY.num_codebooks), TINY.codebook_size)
    with pytest.raises(ValueError, match=r"sub-codes must lie in 0\.\.31, got 32\.\.32"):
        tiny_model.decode(codes)


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 60), (1, 3, 8, 64), (1, 3, 0, 64), (3, 64, 64), (1, 1, 64, 64), (64, 64)]
)
def test_pixels_of_another_shape_are_refused(tiny_model, shape):
    with pytest.raises(ValueError, match=r"pixels must be \(B, 3, H, W\) with sides .* of 16, got"):
        tiny_model.encode(torch.zeros(shape))


def test_pixels_that_are_integers_are_refused(tiny_model):
    with pytest.raises(ValueError, match=r"floating point in \[-1, 1\], got torch.uint8"):
        tiny_model.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_a_batch_gives_what_its_pictures_give_alone(tiny_model):
    pixels = random_pixels(3)
    codes, features = tiny_model.encode(pixels), tiny_model.encode_image(pixels)
    decoded = tiny_model.decode(codes)
    for i in range(3):
        assert torch.equal(tiny_model.encode(pixels[i : i + 1]), codes[i : i + 1])
        # Measured 4e-7 and 1e-7.
        assert torch.allclose(tiny_model.decode(codes[i : i + 1]), decoded[i : i + 1], atol=1e-5)
        alone = tiny_model.encode_image(pixels[i : i + 1])
        assert torch.allclose(alone, features[i : i + 1], atol=1e-5)


def test_forward_agrees_with_encode_decode_and_both_feature_methods(tiny_model):
    pixels, texts = random_pixels(), ["a red circle", "two blue squares"]
    ids = tiny_model.tokenize(texts)
    output = tiny_model(pixels, ids)
    assert torch.equal(output.codes, tiny_model.encode(pixels))
    # The straight-through sum rounds: measured 4e-7.
    decoded = tiny_model.decode(output.codes)
    assert torch.allclose(output.reconstruction.clamp(-1, 1), decoded, atol=1e-5)
    assert torch.allclose(output.image_features, tiny_model.encode_image(pixels), atol=1e-5)
    assert torch.equal(output.text_features, tiny_model.encode_text(texts))
    assert torch.equal(output.logit_scale, tiny_model.logit_scale.exp())
    assert tiny_model(pixels).text_features is None


def test_decoding_clamps_and_the_loss_does_not(tiny_model):
    with torch.no_grad():
        tiny_model.decoder.up_conv4.conv2.weight *= 100
    output = tiny_model(random_pixels())
    assert output.reconstruction.abs().max() > 1
    decoded = tiny_model.decode(output.codes)
    assert decoded.min() == -1
    assert decoded.max() == 1


def test_features_have_length_one(tiny_model):
    images = tiny_model.encode_image(random_pixels())
    texts = tiny_model.encode_text(["a star", "a heart"])
    for features in (images, texts):
        assert features.shape == (2, TINY.feature_dim)
        assert torch.allclose(features.norm(dim=-1), torch.ones(2))


def test_latents_before_quantization_are_those_that_are_quantized(tiny_model):
    pixels = random_pixels()
    latents = tiny_model.encode_latents(pixels)
    assert latents.shape == (2, 16, TINY.latent_dim)
    assert torch.equal(tiny_model.quantizer.encode(latents), tiny_model.encode(pixels))


def test_the_linear_variant_works_as_well():
    model = build_tiny(projection="linear", num_heads=1)
    pixels = random_pixels()
    assert type(model.quant_proj) is type(model.post_quant_proj) is torch.nn.Linear
    assert model.decode(model.encode(pixels)).shape == pixels.shape


def test_a_text_batch_gives_what_its_texts_give_alone(tiny_model):
    texts = ["a red circle", "two small blue squares above a star"]
    together = tiny_model.encode_text(texts)
    alone = torch.cat([tiny_model.encode_text([text]) for text in texts])
    # Measured 6e-8.
    assert torch.allclose(together, alone, atol=1e-6)


def test_autocast_keeps_projections_and_quantizer_in_float32(tiny_model):
    seen = {}

    def remember(module, inputs, output):
        seen[module] = (inputs[0].dtype, getattr(output, "quantized", output).dtype)

    kinds = (AttentionProjection, MultiCodebookQuantizer)
    for module in tiny_model.modules():
        if isinstance(module, (*kinds, torch.nn.Linear)):
            module.register_forward_hook(remember)
    with torch.autocast("cpu", torch.bfloat16):
        tiny_model(random_pixels())
    for part in (tiny_model.quant_proj, tiny_model.quantizer, tiny_model.post_quant_proj):
        assert seen[part] == (torch.float32, torch.float32)
    for part in (tiny_model.quant_proj, tiny_model.post_quant_proj):
        assert seen[part.proj] == seen[part.mlp.w0] == (torch.float32, torch.float32)
    # And the transformer blocks in bfloat16, or the test would show nothing.
    assert seen[tiny_model.encoder.blocks[1].mlp.w0][1] == torch.bfloat16


def test_the_gradient_reaches_every_parameter_but_the_frozen_position():
    model = build_tiny().train()
    output = model(random_pixels(), model.tokenize(["a red circle", "two stars"]))
    similarities = output.image_features @ output.text_features.T * output.logit_scale
    (
        output.reconstruction.square().mean() + output.vq_loss + similarities.square().sum()
    ).backward()
    without = {name for name, param in model.named_parameters() if param.grad is None}
    assert without == FROZEN
    zero = {n for n, p in model.named_parameters() if p.grad is not None and not p.grad.any()}
    assert zero == set()


def test_the_frozen_position_is_a_single_vector_that_starts_at_zero():
    position = UniTok(TINY).encoder.pos_embed
    assert position.shape == (1, 1, TINY.width)
    assert not position.any()
    assert not position.requires_grad


def test_stochastic_depth_grows_linearly_and_rests_in_eval_mode():
    model = build_tiny(drop_path=0.4, depth=3)
    for blocks in (model.encoder.blocks, model.decoder.blocks):
        rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
        assert rates == pytest.approx([0, 0.2, 0.4])
    pixels = random_pixels()
    assert torch.equal(model.encode_latents(pixels), model.encode_latents(pixels))


def test_a_seed_fixes_the_fresh_weights():
    names = []
    for _ in range(2):
        torch.manual_seed(3)
        names.append(UniTok(TINY).fingerprint)
    assert names[0] == names[1]
