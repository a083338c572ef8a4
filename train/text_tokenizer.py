"""Training of a text tokenizer: a small LLaMA-style sentencepiece model with its own vocabulary."""

import io
import tempfile
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

import sentencepiece

from mllm.processor import TEMPLATES, TEXT_TO_IMAGE
from mllm.text_tokenizer import UNCONDITIONAL, TextTokenizer

NUM_FIXED_PIECES = 259  # unk, bos, eos and the 256 bytes
MAX_LOWERCASED = 0x590  # Latin, Greek, Cyrillic and Armenian capitals lie below
LINES_PER_TEMPLATE = 20  # the templates' words become pieces, too


def train_text_tokenizer(
    lines: Iterable[str],
    folder: str | PathLike[str],
    vocab_size: int,
    *,
    lowercase: bool = False,
) -> TextTokenizer:
    """Learn at most `vocab_size` pieces from `lines`, write tokenizer.model into `folder`.

    Ids are laid out as in LLaMA-2: unk 0, bos 1, eos 2, bytes 3 to 258. The same lines give the
    same file. Words are never merged across spaces, so text is learned by short lines.
    `lowercase` makes the tokenizer itself read capitals as small letters.
    """
    if vocab_size <= NUM_FIXED_PIECES:
        raise ValueError(f"vocab_size must exceed {NUM_FIXED_PIECES} fixed ids, got {vocab_size}")
    content = io.BytesIO()
    with tempfile.TemporaryDirectory() as temporary:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_with_templates(lines),
            model_writer=content,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,  # few different words give fewer pieces
            byte_fallback=True,
            character_coverage=1.0,
            split_digits=True,
            remove_extra_whitespaces=False,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
            normalization_rule_tsv=_lowercase_rules(Path(temporary)) if lowercase else "",
            normalization_rule_name="user_defined" if lowercase else "identity",
        )
    tokenizer = TextTokenizer(content.getvalue())
    Path(folder).mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return tokenizer


def _lowercase_rules(folder: Path) -> str:
    """Path of the trainer's rules: lines of two hexadecimal code points, from and to."""
    rules = folder / "lowercase.tsv"
    pairs = [(letter, letter.lower()) for letter in map(chr, range(MAX_LOWERCASED))]
    lines = [
        f"{ord(upper):x}\t{ord(lower):x}\n"
        for upper, lower in pairs
        if upper != lower and len(lower) == 1
    ]
    rules.write_text("".join(lines))
    return str(rules)


def _with_templates(lines: Iterable[str]) -> Iterator[str]:
    template = TEMPLATES["plain"]
    chat = f"{template.user}{UNCONDITIONAL}{template.assistant}"
    for number, line in enumerate(lines):
        yield line
        if number % LINES_PER_TEMPLATE == 0:
            yield chat
            yield TEXT_TO_IMAGE.format(prompt="").strip()
