"""CLIP text tower and text tokenizer, both open_clip's.

The tower comes from open_clip's private `_build_text_tower`, because only that gives the names
and the exact layers of the released checkpoints; constraints.txt pins the version.
"""

from functools import cache

from open_clip.model import CLIPTextCfg, _build_text_tower
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer

NUM_SPECIAL = 2  # start and end of text, the last two ids
NUM_BYTES = 512  # 256 bytes, each inside and at the end of a word


def build_text_tower(
    feature_dim: int, *, width: int, heads: int, layers: int, vocab_size: int, context_length: int
) -> TextTransformer:
    """CLIP's causal text transformer, pooled at the end-of-text token, ids (B, T) -> (B, E)."""
    config = CLIPTextCfg(
        context_length=context_length,
        vocab_size=vocab_size,
        width=width,
        heads=heads,
        layers=layers,
    )
    return _build_text_tower(feature_dim, config, quick_gelu=False)


@cache  # reading the merges takes a tenth of a second
def build_text_tokenizer(vocab_size: int, context_length: int) -> SimpleTokenizer:
    """CLIP's byte-pair tokenizer; calling it with texts gives ids (B, context_length).

    A smaller vocabulary keeps the bytes and CLIP's most frequent merges.
    """
    tokenizer = SimpleTokenizer(context_length=context_length)
    if vocab_size == tokenizer.vocab_size:
        return tokenizer
    num_merges = vocab_size - NUM_BYTES - NUM_SPECIAL
    if not 0 <= num_merges <= len(tokenizer.bpe_ranks):
        raise ValueError(
            f"the text vocabulary must have {NUM_BYTES + NUM_SPECIAL} to "
            f"{tokenizer.vocab_size} entries, got {vocab_size}"
        )
    symbols = list(tokenizer.encoder)
    symbols = symbols[: vocab_size - NUM_SPECIAL] + symbols[-NUM_SPECIAL:]
    tokenizer.encoder = {symbol: i for i, symbol in enumerate(symbols)}
    tokenizer.decoder = dict(enumerate(symbols))
    tokenizer.bpe_ranks = dict(list(tokenizer.bpe_ranks.items())[:num_merges])
    tokenizer.vocab_size = vocab_size
    tokenizer.sot_token_id, tokenizer.eot_token_id = vocab_size - 2, vocab_size - 1
    tokenizer.all_special_ids = [tokenizer.sot_token_id, tokenizer.eot_token_id]
    return tokenizer
