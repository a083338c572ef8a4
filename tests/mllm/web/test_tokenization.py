"""What the second tab tells of a picture."""

import pytest
import torch

from mllm.pictures import open_picture
from mllm.web.code_colors import code_color, draw_code_map
from mllm.web.tokenization import tokenize
from mllm.web.tokenization_markup import render_tokenization


@pytest.fixture(scope="module")
def result(nano):
    return tokenize(nano, open_picture("example:pair"))


def test_the_measures_are_those_of_the_codes(result):
    assert result.num_codes == 4 * 4 * 8
    assert result.bits_per_pixel == pytest.approx(4 * 4 * 8 * 8 / 64**2)  # 256 entries: 8 bits
    assert result.ratio == pytest.approx(96)


def test_code_maps_put_every_code_at_its_place(result):
    maps = result.code_maps
    assert len(maps) == 8
    assert maps[3][1, 2] == result.pictures.codes[1 * 4 + 2, 3]


def test_the_difference_is_black_where_nothing_is_lost(result):
    assert result.difference.size == result.pictures.original.size
    low, high = result.difference.convert("L").getextrema()
    assert low == 0
    assert high > 0


def test_equal_codes_have_equal_colors_and_near_codes_other_ones():
    assert len({code_color(code) for code in range(256)}) == 256
    picture = draw_code_map(torch.tensor([[5, 6], [6, 5]]))
    assert picture.getpixel((0, 0)) == picture.getpixel((1, 1)) == code_color(5)
    assert picture.getpixel((1, 0)) == code_color(6)


def test_the_view_shows_three_pictures_and_a_map_for_each_codebook(result):
    html = render_tokenization(result)
    assert html.count("<figure>") == 3 + 8
    assert "0.25" in html
