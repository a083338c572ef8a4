"""Pictures larger than those of training, square or not, take the same way as any other."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mllm.pictures import example_path
from tests.reference_weights import fill
from unitok.config import PRESETS, UniTokConfig
from unitok.image import load_image, psnr
from unitok.model import NANO_FOLDER, WEIGHTS_FILE, UniTok

SIZES = [(512, 512), (256, 512), (1024, 1024)]
SMALL = UniTokConfig(
    num_codebooks=4,
    codebook_size=64,
    codebook_dim=4,
    width=64,
    depth=2,
    num_heads=4,
    conv_widths=(8, 16),
    conv_depths=(1, 1),
    decoder_expand_ratio=2,
    feature_dim=16,
    text_width=16,
    text_heads=2,
    text_layers=1,
)


def build_filled(config: UniTokConfig) -> UniTok:
    """A model whose weights depend on their names alone."""
    with torch.device("meta"):
        layout = {
            key: (list(each.shape), str(each.dtype).removeprefix("torch."))
            for key, each in UniTok(config).state_dict().items()
        }
    return UniTok.from_weights(config, fill(layout), source="the tests")


def draw(height: int, width: int) -> Tensor:
    """An example picture, stretched: pixels (1, 3, H, W)."""
    picture = load_image(example_path("shapes")).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


@torch.inference_mode()
def check_round_trip(model: UniTok, pixels: Tensor) -> Tensor:
    """Encode and decode a picture; returns the reconstruction."""
    height, width = pixels.shape[-2:]
    grid = (height // 16, width // 16)
    assert model.grid(pixels) == grid
    codes = model.encode(pixels)
    assert codes.shape == (1, grid[0] * grid[1], model.config.num_codebooks)
    decoded = model.decode(codes, grid)
    assert decoded.shape == pixels.shape
    assert decoded.isfinite().all()
    assert decoded.std() > 0.01
    assert model.encode_image(pixels).norm().item() == pytest.approx(1, abs=1e-5)
    return decoded


@pytest.mark.parametrize(("height", "width"), SIZES)
@torch.inference_mode()
def test_large_pictures_round_trip(height: int, width: int) -> None:
    model = build_filled(SMALL)
    pixels = draw(height, width)
    decoded = check_round_trip(model, pixels)
    output = model(pixels)
    assert torch.equal(output.codes, model.encode(pixels))
    # The way of training: straight-through, so rounded otherwise. Measured 4e-6.
    assert torch.allclose(output.reconstruction.clamp(-1, 1), decoded, atol=1e-4)


@torch.inference_mode()
def test_a_picture_that_is_no_square_needs_its_grid() -> None:
    model = build_filled(SMALL)
    codes = model.encode(draw(256, 512))
    with pytest.raises(ValueError, match="512 visual tokens do not form a grid of 22 x 22"):
        model.decode(codes)


@pytest.mark.parametrize(
    ("height", "width"), [*SIZES[:2], pytest.param(*SIZES[2], marks=pytest.mark.slow)]
)
@pytest.mark.skipif(not (NANO_FOLDER / WEIGHTS_FILE).is_file(), reason="no embedded weights")
def test_nano_draws_what_it_sees_at_every_size(height: int, width: int) -> None:
    pixels = draw(height, width)
    decoded = check_round_trip(UniTok.from_pretrained("nano"), pixels)
    assert psnr(pixels, decoded) > 33  # measured 37 to 39 dB at all three


@pytest.fixture(scope="module", params=["base", "large"])
def released_shape(request: pytest.FixtureRequest) -> UniTok:
    return build_filled(PRESETS[request.param])


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_released_shapes_round_trip_at_every_size(
    released_shape: UniTok, height: int, width: int
) -> None:
    check_round_trip(released_shape, draw(height, width))
