"""The tokenizer as training runs it: the part that is copied to every process.

Shapes: B samples of this process, T text ids.
"""

from torch import Tensor, nn

from train.drop_path import SeededDropPath
from unitok.model import UniTok, UniTokOutput


class TokenizerForward(nn.Module):
    """A `UniTok` whose stochastic depth belongs to the samples."""

    def __init__(self, model: UniTok, *, decode_every: int | None, use_texts: bool = True) -> None:
        """Only every `decode_every`-th picture of a batch is decoded, with None not one."""
        super().__init__()
        self.model = model
        self.decode_every = decode_every
        self.use_texts = use_texts
        self._encoder_paths = SeededDropPath(model.encoder, "encoder drop path")
        self._decoder_paths = SeededDropPath(model.decoder, "decoder drop path")

    def forward(self, pixels: Tensor, text_ids: Tensor, seeds: Tensor) -> UniTokOutput:
        """Pixels (B, 3, S, S), text ids (B, T) and seeds (B,)."""
        self._encoder_paths.draw(seeds)
        if self.decode_every is not None:
            self._decoder_paths.draw(seeds[:: self.decode_every])
        shown_ids = text_ids if self.use_texts else None
        return self.model(pixels, shown_ids, decode_every=self.decode_every)

    def features(self, pixels: Tensor, text_ids: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """The image and text features (B, E) that `forward` will give, without the rest."""
        self._encoder_paths.draw(seeds)
        return self.model.encode_image(pixels), self.model.encode_text(text_ids)
