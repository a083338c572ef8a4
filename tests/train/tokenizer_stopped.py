"""`train.tokenizer` whose first process gets a signal in a step: STEP SIGNAL CONFIG..."""

import os
import signal
import sys

import train.tokenizer
from train.tokenizer_trainer import TokenizerTrainer

if __name__ == "__main__":
    step, name = int(sys.argv.pop(1)), sys.argv.pop(1)
    take_step = TokenizerTrainer._train_step

    def take_last_step(trainer, parts):
        values = take_step(trainer, parts)
        if trainer.step + 1 == step and trainer.accelerator.is_main_process:
            os.kill(os.getpid(), getattr(signal, name))
        return values

    TokenizerTrainer._train_step = take_last_step
    train.tokenizer.app()
