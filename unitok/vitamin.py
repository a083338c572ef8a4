"""ViTamin encoder, composed from timm's pieces, and its mirror image, the pixel decoder.

Papers: ViTamin, arXiv 2404.02132 (encoder); UniTok, arXiv 2502.20321 (decoder).

Shapes: B batch, H x W pixels, h x w grid (H / 16, W / 16), L = h*w visual tokens, C width.
"""

from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from timm.models.vision_transformer import Block
from timm.models.vitamin import MbConvStages, VitCfg
from torch import Tensor, nn

from unitok.projection import GeGLU

NORM_EPS = 1e-6
INIT_STD = 0.02  # linear layers
CONV_INIT_GAIN = 0.5  # the decoder's convolutions, Xavier


def build_blocks(width: int, depth: int, num_heads: int, drop_path: float) -> nn.Sequential:
    """ViT blocks with ViTamin's gated MLP; stochastic depth grows linearly to `drop_path`."""
    rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
    return nn.Sequential(
        *(
            Block(
                dim=width,
                num_heads=num_heads,
                mlp_ratio=2,
                qkv_bias=True,
                drop_path=rate,
                # timm asks for a class, and only calls it.
                norm_layer=partial(nn.LayerNorm, eps=NORM_EPS),  # type: ignore[arg-type]
                mlp_layer=GeGLU,
            )
            for rate in rates
        )
    )


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights and zero biases in one linear layer; anything else is left."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_conv(module: nn.Module) -> None:
    """Xavier weights and zero biases in one convolution; anything else is left."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=CONV_INIT_GAIN)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ViTaminEncoder(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] -> features (B, L, C): convolutions, then ViT blocks.

    The only learned position is the convolutions' padding; `pos_embed` is one vector that every
    token gets, as in the released weights. So any multiple of 16 is a legal side.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        conv_widths: tuple[int, int],
        conv_depths: tuple[int, int],
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        stages = VitCfg(
            embed_dim=(*conv_widths, width), depths=(*conv_depths, 1), stem_width=conv_widths[0]
        )
        self.backbone = MbConvStages(stages)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1, width), requires_grad=False)
        self.blocks = build_blocks(width, depth, num_heads, drop_path)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.blocks.apply(init_linear)

    def forward(self, pixels: Tensor) -> Tensor:
        features_BLC = self.backbone(pixels).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(features_BLC + self.pos_embed))


class Upsample(nn.Module):
    """Nearest x2, then a 3x3 convolution: (B, in, H, W) -> (B, out, 2H, 2W)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class InvertedBlock(nn.Module):
    """Mirror of ViTamin's MbConv block: wide inside, depthwise 3x3, doubling the side if asked."""

    def __init__(self, in_dim: int, out_dim: int, *, expand_ratio: int, upsample: bool) -> None:
        super().__init__()
        inner_dim = expand_ratio * out_dim
        self.shortcut = Upsample(in_dim, out_dim) if upsample else nn.Identity()
        self.pre_norm = LayerNorm2d(in_dim, eps=NORM_EPS)
        self.conv1_1x1 = nn.Conv2d(in_dim, inner_dim, 1)
        self.up = Upsample(inner_dim, inner_dim) if upsample else nn.Identity()
        self.conv2_kxk = nn.Conv2d(inner_dim, inner_dim, 3, padding=1, groups=inner_dim)
        self.conv3_1x1 = nn.Conv2d(inner_dim, out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.gelu(self.conv1_1x1(self.pre_norm(x)))
        inner = F.gelu(self.conv2_kxk(self.up(inner)))
        return self.conv3_1x1(inner) + self.shortcut(x)


class PixelStem(nn.Module):
    """The last doubling and the way back to three channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Upsample(width, width)
        self.norm1 = LayerNorm2d(width, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.norm1(self.conv1(x))))


class ViTaminDecoder(nn.Module):
    """Features (B, L, C) with their grid -> pixels (B, 3, 16h, 16w), about [-1, 1], unbounded."""

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        conv_widths: tuple[int, int],
        conv_depths: tuple[int, int],
        expand_ratio: int,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        narrow, wide = conv_widths
        self.blocks = build_blocks(width, depth, num_heads, drop_path)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.up_conv1 = Upsample(width, wide)
        self.up_conv2 = self._build_stage(wide, wide, conv_depths[1], expand_ratio)
        self.up_conv3 = self._build_stage(wide, narrow, conv_depths[0], expand_ratio)
        self.up_conv4 = PixelStem(narrow)
        self.apply(init_linear)
        self.apply(init_conv)

    @staticmethod
    def _build_stage(in_dim: int, out_dim: int, depth: int, expand_ratio: int) -> nn.Sequential:
        blocks = [
            InvertedBlock(
                out_dim if i else in_dim, out_dim, expand_ratio=expand_ratio, upsample=i == 0
            )
            for i in range(depth)
        ]
        return nn.Sequential(*blocks)

    @property
    def last_layer(self) -> Tensor:
        """The weight at which training compares the gradient norms of its losses."""
        return self.up_conv4.conv2.weight

    def forward(self, features_BLC: Tensor, grid: tuple[int, int]) -> Tensor:
        features_BLC = self.norm(self.blocks(features_BLC))
        maps_BChw = features_BLC.transpose(1, 2).unflatten(2, grid)
        return self.up_conv4(self.up_conv3(self.up_conv2(self.up_conv1(maps_BChw))))
