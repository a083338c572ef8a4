"""The tokenizer as training runs it: the part that is copied to every process.

Shapes: B samples of this process, T text ids.
"""

from torch import Tensor, nn

from train.drop_path import SeededDropPath
from unitok.model import UniTok, UniTokOutput


class TokenizerForward(nn.Module):
    """A `UniTok` whose stochastic depth belongs to the samples."""

    def __init__(self, model: UniTok, *, decode_every: int) -> None:
        """Only every `decode_every`-th picture of a batch is decoded."""
        super().__init__()
        self.model = model
        self.decode_every = decode_every
        self._encoder_paths = SeededDropPath(model.encoder, "encoder drop path")
        self._decoder_paths = SeededDropPath(model.decoder, "decoder drop path")

    def forward(self, pixels: Tensor, text_ids: Tensor, seeds: Tensor) -> UniTokOutput:
        """Pixels (B, 3, S, S), text ids (B, T) and seeds (B,)."""
        self._encoder_paths.draw(seeds)
        self._decoder_paths.draw(seeds[:: self.decode_every])
        return self.model(pixels, text_ids, decode_every=self.decode_every)

    def features(self, pixels: Tensor, text_ids: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """The image and text features (B, E) that `forward` will give, without the rest."""
        self._encoder_paths.draw(seeds)
        return self.model.encode_image(pixels), self.model.encode_text(text_ids)
