"""The HTML of the second tab: pictures, measures and code maps."""

from collections.abc import Sequence

from PIL import Image

from mllm.pictures import example_path
from mllm.web.code_colors import draw_code_map
from mllm.web.markup import jpeg_url, png_url
from mllm.web.tokenization import DIFFERENCE_GAIN, Tokenization


def render_examples(names: Sequence[str]) -> str:
    """Pictures to begin with."""
    buttons = []
    for number, name in enumerate(names):
        with Image.open(example_path(name)) as picture:
            face = jpeg_url(picture.convert("RGB"))
        buttons.append(
            f'<button type="button" data-action="example" data-number="{number}" '
            f'aria-label="Example: {name}"><img src="{face}" alt=""></button>'
        )
    return f'<div class="thumbnails">{"".join(buttons)}</div>'


def render_tokenization(result: Tokenization) -> str:
    pictures = result.pictures
    shown = (
        ("Original", "as the model sees it", pictures.original),
        ("Reconstruction", f"{pictures.psnr:.1f} dB PSNR", pictures.decoded),
        ("Difference", f"{DIFFERENCE_GAIN} times as strong", result.difference),
    )
    figures = "".join(_render_picture(*each) for each in shown)
    return (
        f'<section class="tokenization"><div class="trio">{figures}</div>'
        f"{_render_measures(result)}{_render_maps(result)}</section>"
    )


def _render_picture(title: str, detail: str, picture: Image.Image) -> str:
    return (
        f'<figure><img src="{png_url(picture)}" alt="{title}">'
        f'<figcaption><strong>{title}</strong> <span class="quiet">{detail}</span></figcaption>'
        "</figure>"
    )


def _render_measures(result: Tokenization) -> str:
    rows, columns = result.grid
    num_codebooks = len(result.code_maps)
    smaller = f"{result.ratio:,.0f} times fewer than 24"
    measures = (
        ("Codes", f"{result.num_codes:,}", f"{rows} by {columns} visual tokens of {num_codebooks}"),
        ("Bits per pixel", f"{result.bits_per_pixel:.3g}", smaller),
        ("Codebooks", str(num_codebooks), f"of {result.codebook_size:,} entries each"),
    )
    cells = "".join(
        f'<div><dt>{name}</dt><dd>{value}<span class="quiet">{detail}</span></dd></div>'
        for name, value, detail in measures
    )
    return f'<dl class="measures">{cells}</dl>'


def _render_maps(result: Tokenization) -> str:
    rows, columns = result.grid
    figures = []
    for number, codes in enumerate(result.code_maps, start=1):
        used = len(codes.unique())
        label = f"Codebook {number}: {used} different codes at {rows * columns} places"
        figures.append(
            f'<figure><img class="map" src="{png_url(draw_code_map(codes))}" alt="{label}">'
            f"<figcaption><strong>{number}</strong> "
            f'<span class="quiet">{used} different</span></figcaption></figure>'
        )
    return (
        '<h2 class="side-title">Code maps</h2><p class="quiet">One for each codebook, one cell for '
        "each visual token. The same colour within a map is the same code.</p>"
        f'<div class="maps">{"".join(figures)}</div>'
    )
