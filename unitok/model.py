"""UniTok: a discrete visual tokenizer whose codes both reconstruct and mean something.

Paper: UniTok, arXiv 2502.20321. pixels -> ViTamin encoder -> attention projection -> latents ->
K codebooks -> attention projection -> ViTamin decoder -> pixels; the tokens after the second
projection, averaged and projected, live in CLIP's feature space.

Shapes: B batch, H x W pixels, L visual tokens (h*w = H/16 * W/16), C latent width, K codebooks,
E feature width, T text length.
"""

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from unitok.checkpoint import check_keys, load_weights
from unitok.config import PATCH_SIZE, UniTokConfig
from unitok.files import atomic_write
from unitok.fingerprint import fingerprint, fingerprint_in_memory
from unitok.hub import CONFIG_FILE, push_folder, resolve_model
from unitok.projection import AttentionProjection
from unitok.quantizer import MultiCodebookQuantizer
from unitok.text import build_text_tokenizer, build_text_tower
from unitok.vitamin import ViTaminDecoder, ViTaminEncoder, init_linear

WEIGHTS_FILE = "model.safetensors"
NANO_FOLDER = Path(__file__).parent / "nano"
INIT_TEMPERATURE = 0.07  # CLIP's
MAX_LOGIT_SCALE = math.log(100)


@dataclass
class UniTokOutput:
    """What training needs of one batch."""

    reconstruction: Tensor | None  # (B, 3, H, W) of what was decoded, not clamped; None: nothing
    image_features: Tensor  # (B, E), l2-normalised
    text_features: Tensor | None  # (B, E), l2-normalised; None without texts
    logit_scale: Tensor  # scalar, after exp
    vq_loss: Tensor  # scalar
    usage: Tensor  # scalar, percent of the codebook entries in use
    codes: Tensor  # (B, L, K) int64
    latents: Tensor  # (B, L, C), before quantization


def check_grid(num_tokens: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """The grid (h, w) of L visual tokens; without one, L must be a square."""
    if grid is None:
        side = math.isqrt(num_tokens)
        grid = (side, side)
    if min(grid) < 1 or grid[0] * grid[1] != num_tokens:
        raise ValueError(
            f"{num_tokens} visual tokens do not form a grid of {grid[0]} x {grid[1]}; "
            "pass grid=(rows, columns) of the picture"
        )
    return grid


class UniTok(nn.Module):
    """The tokenizer. Pixels are (B, 3, H, W) in [-1, 1] with sides that are multiples of 16."""

    def __init__(self, config: UniTokConfig) -> None:
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INIT_TEMPERATURE)))
        self.encoder = ViTaminEncoder(
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            conv_widths=config.conv_widths,
            conv_depths=config.conv_depths,
            drop_path=config.drop_path,
        )
        self.quant_proj = self._build_projection(config.width, config.latent_dim)
        self.quantizer = MultiCodebookQuantizer(
            config.num_codebooks,
            config.codebook_size,
            codebook_dim=config.codebook_dim,
            commitment_weight=config.commitment_weight,
        )
        self.post_quant_proj = self._build_projection(config.latent_dim, config.width)
        self.decoder = ViTaminDecoder(
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            conv_widths=config.conv_widths,
            conv_depths=config.conv_depths,
            expand_ratio=config.decoder_expand_ratio,
            drop_path=config.drop_path,
        )
        self.text_encoder = build_text_tower(
            config.feature_dim,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
            vocab_size=config.text_vocab_size,
            context_length=config.text_context_length,
        )
        self.fc_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.projection = nn.Linear(config.width, config.feature_dim)
        for module in (self.quant_proj, self.post_quant_proj, self.projection):
            module.apply(init_linear)
        self._loaded_fingerprint: str | None = None

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        return self.logit_scale.dtype

    @property
    def fingerprint(self) -> str:
        """Name of the weights in memory."""
        return fingerprint_in_memory(self, self.dtype, on_disk=self._loaded_fingerprint)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "nano",
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "UniTok":
        """Load `nano`, a folder or a hub name, strictly, in eval mode.

        Raises FileNotFoundError for an unknown name and ValueError for weights that do not fit.
        """
        folder = resolve_model(
            name, nano_folder=NANO_FOLDER, expected_type="unitok", revision=revision
        )
        config = UniTokConfig.from_json(folder / CONFIG_FILE)
        weights = load_weights(folder / WEIGHTS_FILE)
        model = cls.from_weights(config, weights, source=folder / WEIGHTS_FILE, dtype=dtype)
        return model.to(device)

    @classmethod
    def from_weights(
        cls,
        config: UniTokConfig,
        weights: Mapping[str, Tensor],
        *,
        source: object,
        dtype: torch.dtype = torch.float32,
    ) -> "UniTok":
        """A model in eval mode that takes over `weights`; errors name their `source`.

        Tensors that have `dtype` already are not copied, so a large file is read only once.
        """
        with torch.device("meta"):
            model = cls(config)
        check_keys(weights, model.state_dict(), source=source)
        typed = {key: value.to(dtype) for key, value in weights.items()}
        model.load_state_dict(typed, assign=True)
        model._restore_buffers()
        if dtype == torch.float16:
            model._loaded_fingerprint = fingerprint(weights)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into `folder`, each file atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {key: value.contiguous() for key, value in self.state_dict().items()}
        with atomic_write(folder / WEIGHTS_FILE) as path:
            save_file(weights, path, metadata={"format": "pt"})
        with atomic_write(folder / CONFIG_FILE) as path:
            path.write_text(json.dumps(self.config.to_dict(), indent=2) + "\n")

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Save and upload to the hub; returns the address of the commit."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(Path(folder), repo_id, private=private)

    def grid(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of visual tokens for pixels (B, 3, H, W)."""
        if not pixels.is_floating_point():
            raise ValueError(
                f"pixels must be floating point in [-1, 1], got {pixels.dtype}; "
                "preprocess(image) makes them"
            )
        rows, columns = (side // PATCH_SIZE for side in pixels.shape[-2:])
        is_image = pixels.ndim == 4 and pixels.shape[1] == 3 and rows > 0 and columns > 0
        if not is_image or pixels.shape[-2:] != (rows * PATCH_SIZE, columns * PATCH_SIZE):
            raise ValueError(
                f"pixels must be (B, 3, H, W) with sides that are multiples of {PATCH_SIZE}, "
                f"got {tuple(pixels.shape)}; preprocess(image, 'native') rounds the sides"
            )
        return rows, columns

    def encode_latents(self, pixels: Tensor) -> Tensor:
        """Pixels -> latents before quantization (B, L, C), which other MLLMs use as features."""
        self.grid(pixels)
        features_BLC = self.encoder(pixels.to(self.dtype))
        with torch.autocast(pixels.device.type, enabled=False):
            return self.quant_proj(features_BLC.to(self.dtype))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels -> codes (B, L, K) int64, row by row over the grid."""
        return self.quantizer.encode(self.encode_latents(pixels))

    def decode(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Codes (B, L, K) -> pixels (B, 3, 16h, 16w), clamped to [-1, 1]; no grid: a square."""
        self.quantizer.check_codes(codes)
        grid = check_grid(codes.shape[1], grid)
        features_BLC = self._project_back(self.quantizer.lookup(codes))
        return self.decoder(features_BLC, grid).clamp(-1, 1)

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        """Pixels -> the features (B, L, width) that the decoder and `encode_image` begin with."""
        return self._project_back(self.quantizer.lookup(self.encode(pixels)))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels -> image features (B, E), l2-normalised, comparable with `encode_text`."""
        return self._pool(self.encode_tokens(pixels))

    def encode_text(self, texts: list[str] | Tensor) -> Tensor:
        """Texts, or their ids (B, T), -> text features (B, E), l2-normalised."""
        if not isinstance(texts, Tensor):
            texts = self.tokenize(texts)
        return F.normalize(self.text_encoder(texts.to(self.device)), dim=-1)

    def tokenize(self, texts: list[str]) -> Tensor:
        """Texts -> ids (B, T) int64 of the CLIP text tower, cut at its context length."""
        config = self.config
        return build_text_tokenizer(config.text_vocab_size, config.text_context_length)(texts)

    def forward(
        self, pixels: Tensor, text_ids: Tensor | None = None, *, decode_every: int | None = 1
    ) -> UniTokOutput:
        """Pixels, and text ids (B, T) if there are any, -> everything the losses need.

        Of the pictures, only every `decode_every`-th is decoded, beginning with the first; None
        decodes none.
        """
        latents_BLC = self.encode_latents(pixels)
        quantized = self.quantizer(latents_BLC)
        features_BLC = self._project_back(quantized.quantized)
        return UniTokOutput(
            reconstruction=None
            if decode_every is None
            else self.decoder(features_BLC[::decode_every], self.grid(pixels)),
            image_features=self._pool(features_BLC),
            text_features=None if text_ids is None else self.encode_text(text_ids),
            logit_scale=self.logit_scale.exp(),
            vq_loss=quantized.vq_loss,
            usage=quantized.usage,
            codes=quantized.codes,
            latents=latents_BLC,
        )

    def _build_projection(self, in_dim: int, out_dim: int) -> nn.Module:
        if self.config.projection == "linear":
            return nn.Linear(in_dim, out_dim)
        return AttentionProjection(in_dim, out_dim, self.config.projection_heads)

    def _project_back(self, quantized_BLC: Tensor) -> Tensor:
        with torch.autocast(quantized_BLC.device.type, enabled=False):
            return self.post_quant_proj(quantized_BLC.to(self.dtype))

    def _pool(self, features_BLC: Tensor) -> Tensor:
        return F.normalize(self.projection(self.fc_norm(features_BLC.mean(dim=1))), dim=-1)

    def _restore_buffers(self) -> None:
        """Real values for the buffers that no checkpoint holds and the meta device left empty."""
        self.quantizer.num_updates = torch.zeros((), dtype=torch.int64)
        self.text_encoder.attn_mask = self.text_encoder.build_causal_mask()
