"""`train.mllm` that fails unless DeepSpeed computes in bfloat16 and sums in float32."""

import torch
from transformers import TrainerCallback

import train.mllm


class CheckTypes(TrainerCallback):
    def __init__(self, trainer: train.mllm.MLLMTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, *_, **__) -> None:
        types = self.trainer.model_wrapped.get_data_types()
        assert types == (torch.bfloat16, torch.float32), types


if __name__ == "__main__":
    build = train.mllm.build_trainer

    def build_checked(*arguments):
        trainer = build(*arguments)
        trainer.add_callback(CheckTypes(trainer))
        return trainer

    train.mllm.build_trainer = build_checked
    train.mllm.app()
