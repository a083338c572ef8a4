"""A CLIP of test size with random weights, in files as open_clip has them."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

TINY = "tiny-clip-of-the-tests"


def save_tiny_clip(folder: Path) -> Path:
    """A file of random weights; its architecture is made known to open_clip as `TINY`."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    (folder / f"{TINY}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{TINY}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(TINY, force_quick_gelu=True)
    save_file(model.state_dict(), folder / "clip.safetensors")
    return folder / "clip.safetensors"
