"""Text ids: a LLaMA-style sentencepiece model behind the few methods that this project needs.

transformers' `LlamaTokenizer` is not used: it turns `<s>` written by a user into the special id,
and drops one of two leading spaces, so its ids differ from the model's training.
"""

import re
import unicodedata
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import sentencepiece
from torch import Tensor

from unitok.files import atomic_write

TOKENIZER_FILE = "tokenizer.model"
# Ids that the official model fixes. The first two byte pieces double as picture marks: a NUL in a
# text *is* begin-of-image, which is why text is cleaned.
UNK_ID, BOS_ID, EOS_ID, BOI_ID, EOI_ID = range(5)
SPECIAL_PIECES = ("<unk>", "<s>", "</s>", "<0x00>", "<0x01>")
UNCONDITIONAL = "<unconditional>"

SPECIAL_STRING = re.compile(
    r"</?s>|<(?:unk|pad|image|unconditional)>|<0x[0-9a-f]{2}>", re.IGNORECASE
)
KEPT_CONTROLS = "\n\t"
UNWANTED_CATEGORIES = ("Cc", "Cs")  # controls, and lone surrogates that have no UTF-8 form
PREFIX_GUARD = "\n"  # never merges with its neighbours


def clean_text(text: str) -> str:
    """Text without control characters and special strings: it cannot contain ids 0 to 4.

    A special string becomes a space, so that removing one never joins its neighbours to another.
    """
    text = text.replace("\r\n", "\n")
    kept = (
        char
        for char in text
        if char in KEPT_CONTROLS or unicodedata.category(char) not in UNWANTED_CATEGORIES
    )
    return SPECIAL_STRING.sub(" ", "".join(kept)).strip()


class TextTokenizer:
    """A sentencepiece model with the id layout of LLaMA-2; usable by transformers' streamers."""

    bos_token_id = BOS_ID
    eos_token_id = EOS_ID
    pad_token_id = UNK_ID

    def __init__(self, model_proto: bytes) -> None:
        """`model_proto` is the content of a tokenizer.model file."""
        self.model_proto = model_proto
        self._model = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
        found = tuple(self._model.id_to_piece(i) for i in range(min(5, len(self))))
        if found != SPECIAL_PIECES:
            raise ValueError(
                f"the text tokenizer starts with the pieces {', '.join(found)}, expected "
                f"{', '.join(SPECIAL_PIECES)}: a LLaMA-style model with byte fallback"
            )
        self._guard_ids: list[int] = self._model.encode(PREFIX_GUARD)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> "TextTokenizer":
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no text tokenizer at {path}; expected a sentencepiece model")
        try:
            return cls(path.read_bytes())
        except RuntimeError as error:
            raise ValueError(f"{path} is no sentencepiece model; copy the file again") from error

    def save(self, folder: str | PathLike[str]) -> None:
        with atomic_write(Path(folder) / TOKENIZER_FILE) as path:
            path.write_bytes(self.model_proto)

    def __len__(self) -> int:
        return int(self._model.get_piece_size())

    def encode(self, text: str, *, starts_word: bool = True) -> list[int]:
        """Ids without bos and eos. `starts_word`: begin as after a space, which is the default of
        LLaMA; False continues directly behind what stands before."""
        if starts_word:
            return list(self._model.encode(text))
        return list(self._model.encode(PREFIX_GUARD + text)[len(self._guard_ids) :])

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Text of ids; special ids, picture marks and placeholders have none."""
        ids = ids.flatten().tolist() if isinstance(ids, Tensor) else ids
        written = [token_id for token_id in ids if len(SPECIAL_PIECES) <= token_id < len(self)]
        return str(self._model.decode(written))
