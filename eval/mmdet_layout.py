"""Where the tensors of GenEval's official detector belong in transformers' Mask2Former.

The official weights are a Mask2Former with Swin-S backbone for COCO instances, trained with
mmdet 2.x. Both networks are the same function. Tensors are renamed, fused attention projections
are split, and patch merging orders the pixels of a 2 x 2 cell differently.

The new names are those of the checkpoints on the hub, which every release of transformers renames
to its own when it loads them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SWIN_WIDTH = 96
SWIN_DEPTHS = (2, 2, 18, 2)
SWIN_HEADS = (3, 6, 12, 24)
WINDOW = 7
HIDDEN = 256
NUM_CLASSES = 80
NUM_QUERIES = 100
NUM_LEVELS = 3  # strides 32, 16 and 8 in the pixel decoder
NUM_HEADS = 8
NUM_POINTS = 4  # of deformable attention, per head and level
ENCODER_LAYERS = 6
ENCODER_MLP = 1024
DECODER_LAYERS = 9
DECODER_MLP = 2048

_ENCODER = "model.pixel_level_module.encoder."
_PIXEL_DECODER = "model.pixel_level_module.decoder."
_DECODER = "model.transformer_module."
_OFFICIAL_PIXEL_DECODER = "panoptic_head.pixel_decoder."
_OFFICIAL_DECODER = "panoptic_head.transformer_decoder."


@dataclass(frozen=True)
class Move:
    """One official tensor: its shape and the names of the equal row blocks it is split into.

    Without a name it is a constant that the new model computes. `merges` marks the patch-merging
    tensors, whose last axis is permuted.
    """

    official: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    merges: bool = False

    @property
    def is_index(self) -> bool:
        """Whether this is the int64 table of relative positions."""
        return not self.names


def official_moves() -> list[Move]:
    """All 649 tensors of an official checkpoint, in its order of modules."""
    return [*_backbone(), *_pixel_decoder(), *_transformer_decoder(), *_heads()]


def relative_position_index() -> np.ndarray:
    """The table (49, 49) int64 that every Swin block of an official checkpoint carries."""
    rows, columns = np.divmod(np.arange(WINDOW**2), WINDOW)
    offset_y = rows[:, None] - rows + WINDOW - 1
    offset_x = columns[:, None] - columns + WINDOW - 1
    return offset_y * (2 * WINDOW - 1) + offset_x


def merging_order(num_channels: int) -> np.ndarray:
    """For each of the 4C inputs of patch merging, its place in the official order.

    Officially the channel is slowest, then the row, then the column in the 2 x 2 cell; in
    transformers the column is slowest, then the row, then the channel.
    """
    official = np.arange(4 * num_channels).reshape(num_channels, 2, 2)  # channel, row, column
    return official.transpose(2, 1, 0).reshape(-1)


def _layer(
    official: str, *names: str, shape: tuple[int, ...], merges: bool = False
) -> Iterator[Move]:
    """Weight and bias of a layer."""
    weights = tuple(f"{name}.weight" for name in names)
    yield Move(f"{official}.weight", weights, shape, merges)
    biases = tuple(f"{name}.bias" for name in names)
    yield Move(f"{official}.bias", biases, shape[:1], merges)


def _backbone() -> Iterator[Move]:
    embeddings = f"{_ENCODER}embeddings."
    yield from _layer(
        "backbone.patch_embed.projection",
        f"{embeddings}patch_embeddings.projection",
        shape=(SWIN_WIDTH, 3, 4, 4),
    )
    yield from _layer("backbone.patch_embed.norm", f"{embeddings}norm", shape=(SWIN_WIDTH,))
    for stage, depth in enumerate(SWIN_DEPTHS):
        for block in range(depth):
            yield from _swin_block(stage, block)
        if stage + 1 < len(SWIN_DEPTHS):
            yield from _patch_merging(stage)
    for stage in range(len(SWIN_DEPTHS)):
        norm = f"{_ENCODER}hidden_states_norms.stage{stage + 1}"
        yield from _layer(f"backbone.norm{stage}", norm, shape=(SWIN_WIDTH * 2**stage,))


def _swin_block(stage: int, block: int) -> Iterator[Move]:
    width = SWIN_WIDTH * 2**stage
    official = f"backbone.stages.{stage}.blocks.{block}."
    ours = f"{_ENCODER}encoder.layers.{stage}.blocks.{block}."
    window, attention = f"{official}attn.w_msa.", f"{ours}attention.self."
    table = "relative_position_bias_table"
    yield from _layer(f"{official}norm1", f"{ours}layernorm_before", shape=(width,))
    num_offsets = (2 * WINDOW - 1) ** 2
    yield Move(window + table, (attention + table,), (num_offsets, SWIN_HEADS[stage]))
    yield Move(f"{window}relative_position_index", (), (WINDOW**2, WINDOW**2))
    query_key_value = (f"{attention}{name}" for name in ("query", "key", "value"))
    yield from _layer(f"{window}qkv", *query_key_value, shape=(3 * width, width))
    yield from _layer(f"{window}proj", f"{ours}attention.output.dense", shape=(width, width))
    yield from _layer(f"{official}norm2", f"{ours}layernorm_after", shape=(width,))
    up, down = (4 * width, width), (width, 4 * width)
    yield from _layer(f"{official}ffn.layers.0.0", f"{ours}intermediate.dense", shape=up)
    yield from _layer(f"{official}ffn.layers.1", f"{ours}output.dense", shape=down)


def _patch_merging(stage: int) -> Iterator[Move]:
    width = SWIN_WIDTH * 2**stage
    official = f"backbone.stages.{stage}.downsample."
    ours = f"{_ENCODER}encoder.layers.{stage}.downsample."
    yield from _layer(f"{official}norm", f"{ours}norm", shape=(4 * width,), merges=True)
    reduction = "reduction.weight"
    yield Move(official + reduction, (ours + reduction,), (2 * width, 4 * width), merges=True)


def _pixel_decoder() -> Iterator[Move]:
    official, ours = _OFFICIAL_PIXEL_DECODER, _PIXEL_DECODER
    for level in range(NUM_LEVELS):
        convolution, norm = f"{official}input_convs.{level}.", f"{ours}input_projections.{level}."
        width = SWIN_WIDTH * 2 ** (NUM_LEVELS - level)
        yield from _layer(f"{convolution}conv", f"{norm}0", shape=(HIDDEN, width, 1, 1))
        yield from _layer(f"{convolution}gn", f"{norm}1", shape=(HIDDEN,))
    for layer in range(ENCODER_LAYERS):
        yield from _deformable_layer(layer)
    levels = (NUM_LEVELS, HIDDEN)
    yield Move(f"{official}level_encoding.weight", (f"{ours}level_embed",), levels)
    lateral = (HIDDEN, SWIN_WIDTH, 1, 1)
    yield Move(f"{official}lateral_convs.0.conv.weight", (f"{ours}adapter_1.0.weight",), lateral)
    yield from _layer(f"{official}lateral_convs.0.gn", f"{ours}adapter_1.1", shape=(HIDDEN,))
    smoothing = (HIDDEN, HIDDEN, 3, 3)
    yield Move(f"{official}output_convs.0.conv.weight", (f"{ours}layer_1.0.weight",), smoothing)
    yield from _layer(f"{official}output_convs.0.gn", f"{ours}layer_1.1", shape=(HIDDEN,))
    projection = (HIDDEN, HIDDEN, 1, 1)
    yield from _layer(f"{official}mask_feature", f"{ours}mask_projection", shape=projection)


def _deformable_layer(layer: int) -> Iterator[Move]:
    official = f"{_OFFICIAL_PIXEL_DECODER}encoder.layers.{layer}."
    ours = f"{_PIXEL_DECODER}encoder.layers.{layer}."
    num_samples = NUM_HEADS * NUM_LEVELS * NUM_POINTS
    for name, rows in {
        "sampling_offsets": 2 * num_samples,
        "attention_weights": num_samples,
        "value_proj": HIDDEN,
        "output_proj": HIDDEN,
    }.items():
        yield from _layer(
            f"{official}attentions.0.{name}", f"{ours}self_attn.{name}", shape=(rows, HIDDEN)
        )
    yield from _mlp(official, ours, ENCODER_MLP)
    for place, name in enumerate(("self_attn_layer_norm", "final_layer_norm")):
        yield from _layer(f"{official}norms.{place}", ours + name, shape=(HIDDEN,))


def _transformer_decoder() -> Iterator[Move]:
    for layer in range(DECODER_LAYERS):
        yield from _decoder_layer(layer)
    final_norm = f"{_DECODER}decoder.layernorm"
    yield from _layer(f"{_OFFICIAL_DECODER}post_norm", final_norm, shape=(HIDDEN,))


def _decoder_layer(layer: int) -> Iterator[Move]:
    official = f"{_OFFICIAL_DECODER}layers.{layer}."
    ours = f"{_DECODER}decoder.layers.{layer}."
    fused, square = (3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN)
    for place, name in enumerate(("cross_attn", "self_attn")):
        theirs = f"{official}attentions.{place}.attn."
        for kind, shape in (("weight", fused), ("bias", fused[:1])):
            names: tuple[str, ...] = (f"{ours}{name}.in_proj_{kind}",)
            if name == "self_attn":  # only cross-attention stays fused
                names = tuple(f"{ours}{name}.{part}_proj.{kind}" for part in "qkv")
            yield Move(f"{theirs}in_proj_{kind}", names, shape)
        yield from _layer(f"{theirs}out_proj", f"{ours}{name}.out_proj", shape=square)
    yield from _mlp(official, ours, DECODER_MLP)
    norms = ("cross_attn_layer_norm", "self_attn_layer_norm", "final_layer_norm")
    for place, name in enumerate(norms):
        yield from _layer(f"{official}norms.{place}", ours + name, shape=(HIDDEN,))


def _mlp(official: str, ours: str, width: int) -> Iterator[Move]:
    yield from _layer(f"{official}ffns.0.layers.0.0", f"{ours}fc1", shape=(width, HIDDEN))
    yield from _layer(f"{official}ffns.0.layers.1", f"{ours}fc2", shape=(HIDDEN, width))


def _heads() -> Iterator[Move]:
    for official, ours, rows in (
        ("query_embed", "queries_embedder", NUM_QUERIES),  # positions
        ("query_feat", "queries_features", NUM_QUERIES),  # contents
        ("level_embed", "level_embed", NUM_LEVELS),
    ):
        name = f"{_DECODER}{ours}.weight"
        yield Move(f"panoptic_head.{official}.weight", (name,), (rows, HIDDEN))
    rows = NUM_CLASSES + 1  # the last one says "no object"
    yield from _layer("panoptic_head.cls_embed", "class_predictor", shape=(rows, HIDDEN))
    for place in range(3):
        official = f"panoptic_head.mask_embed.{2 * place}"  # a ReLU stands between two of them
        ours = f"{_DECODER}decoder.mask_predictor.mask_embedder.{place}.0"
        yield from _layer(official, ours, shape=(HIDDEN, HIDDEN))
