"""A contact sheet of code shards: what a model will be trained on, decoded and beside its text."""

from pathlib import Path

import torch
from PIL import Image

from eval.demo_sheet import GAP, INK, MARGIN, MUTED, PAPER, Line, beside, stacked, text_block
from mllm.pictures import save_png
from train.code_shards import CodeRow, CodeShards, PictureCodes
from unitok.image import to_pil
from unitok.model import UniTok

NUM_ROWS = 24
COLUMNS = 3
TILE_WIDTH = 440
PICTURE_SIZE = 208  # pixels of the longer side
PICTURES_PER_LINE = 2
MAX_TEXT = 280  # characters of one text
MAX_TURNS = 6  # of one conversation
GOLDEN_RATIO = 0.618034

PICTURE_MARK = "[picture]"


def draw_preview(shards: CodeShards, tokenizer: UniTok, path: Path) -> None:
    """Write rows from all sources as a PNG, their pictures decoded by `tokenizer`."""
    if not len(shards):
        raise ValueError(f"{shards.folder} has no rows; bad_samples.jsonl says why")
    tiles = [row_tile(shards.row(index), tokenizer) for index in choose_rows(shards)]
    lines = [
        beside(tiles[start : start + COLUMNS], gap=2 * GAP)
        for start in range(0, len(tiles), COLUMNS)
    ]
    sheet = stacked(lines, gap=2 * GAP)
    page = Image.new("RGB", (sheet.width + 2 * MARGIN, sheet.height + 2 * MARGIN), PAPER)
    page.paste(sheet, (MARGIN, MARGIN))
    save_png(page, path, notes={"tokenizer_fingerprint": shards.origin.tokenizer_fingerprint})


def choose_rows(shards: CodeShards, *, num_rows: int = NUM_ROWS) -> list[int]:
    """Rows spread over every source; the same for the same folder."""
    spans: dict[str, range] = {}
    start = 0
    for shard in shards.shards:  # a source's shards follow each other
        stop = start + shard.num_rows
        spans[shard.source] = range(spans.get(shard.source, range(start, stop)).start, stop)
        start = stop
    share = max(1, num_rows // len(spans))
    return [index for span in spans.values() for index in spread(span, share)]


def spread(span: range, count: int) -> list[int]:
    """`count` numbers of a span. Steps of the golden ratio do not hit one task again and again,
    as even steps may where tasks take turns."""
    if len(span) <= count:
        return list(span)
    return sorted({span[int(len(span) * (GOLDEN_RATIO * n % 1))] for n in range(count)})


def row_tile(row: CodeRow, tokenizer: UniTok) -> Image.Image:
    """One row: where it comes from, its pictures, and its text beside one or below several."""
    pictures = [decoded(picture, tokenizer) for picture in row.pictures]
    heading = text_block([(f"{row.source} · {row.task} · {row.id}", MUTED)], TILE_WIDTH)
    if len(pictures) == 1:
        width = TILE_WIDTH - PICTURE_SIZE - GAP
        return stacked([heading, beside([*pictures, text_block(text_lines(row), width)])], gap=6)
    lines = [
        beside(pictures[start : start + PICTURES_PER_LINE])
        for start in range(0, len(pictures), PICTURES_PER_LINE)
    ]
    return stacked([heading, *lines, text_block(text_lines(row), TILE_WIDTH)], gap=6)


def decoded(picture: PictureCodes, tokenizer: UniTok) -> Image.Image:
    """The picture that codes stand for, enlarged or reduced for the sheet."""
    with torch.inference_mode():
        pixels = tokenizer.decode(picture.codes[None].to(tokenizer.device), picture.grid)
    image = to_pil(pixels)[0]
    scale = PICTURE_SIZE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def text_lines(row: CodeRow) -> list[Line]:
    """The captions, the document, or the turns of a conversation."""
    if row.messages is None:
        return [(shortened(text), INK) for text in row.texts]
    lines = []
    for message in row.messages[:MAX_TURNS]:
        parts = [
            shortened(part["text"]) if part["type"] == "text" else PICTURE_MARK
            for part in message["content"]
        ]
        lines.append((f"{message['role']}: {' '.join(parts)}", INK))
    if len(row.messages) > MAX_TURNS:
        lines.append((f"and {len(row.messages) - MAX_TURNS} more turns", MUTED))
    return lines


def shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
