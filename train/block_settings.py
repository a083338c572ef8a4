"""Ways to compute a tokenizer's blocks: remembering less, or compiled."""

from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unitok.model import UniTok


class RecomputedSequential(nn.Sequential):
    """Keeps only what goes into each layer, and computes the layer again for the gradients."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            # Nothing inside draws from the global random state, so there is none to restore.
            x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
        return x


def recompute_blocks(model: UniTok) -> None:
    """Trade time for memory in every deep part; names of parameters stay."""
    for parent, name in (
        (model.encoder.backbone, "stages"),
        (model.encoder, "blocks"),
        (model.decoder, "blocks"),
        (model.decoder, "up_conv2"),
        (model.decoder, "up_conv3"),
    ):
        setattr(parent, name, RecomputedSequential(*getattr(parent, name)))
    model.text_encoder.set_grad_checkpointing(True)


def compile_blocks(model: UniTok, **options: Any) -> None:
    """Each ViT block through torch.compile: equal blocks share what is compiled."""
    for block in (*model.encoder.blocks, *model.decoder.blocks):
        block.compile(**options)
