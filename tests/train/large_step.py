"""One training step of UniTok-Large in this process: prints its values and the peak memory."""

import json

import torch

from eval.memory import peak_memory_gib
from tests.train.runs import ROOT
from tests.train.tokenizer_runs import build_trainer
from train.config import load_config
from train.tokenizer_config import TokenizerConfig

LARGE = ROOT / "train" / "configs" / "tokenizer_large_256.yaml"
CHANGES = (
    "data.source={kind: scenes}",
    "batch={size: 2}",
    "weights.edge=0.1",
    "weights.entropy=0.01",
    "adversary.start_share=0",
    # Random networks of the sizes of VGG-16 and DINOv2-S.
    "perceptual.weights=random",
    "adversary.network={random_backbone: {width: 384, depth: 12}}",
    "zero1=false",  # there is one process
    "watch={report_to: [], num_samples: 1}",
    "num_workers=0",
    "precision=fp32",
    "device=cpu",
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer = build_trainer(load_config(TokenizerConfig, LARGE, CHANGES))
    values = trainer._train_step(trainer._parts(next(trainer.data.batches(0))))
    print(json.dumps({**values, "peak_memory_gib": peak_memory_gib()}))  # noqa: T201
