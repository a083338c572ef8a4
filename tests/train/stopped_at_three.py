"""`train.mllm` whose first process gets SIGTERM in the third step."""

import os

import train.mllm
from tests.train.test_mllm import StopAt

if __name__ == "__main__":
    build = train.mllm.build_trainer

    def build_stopping(*arguments):
        trainer = build(*arguments)
        if os.environ["RANK"] == "0":
            trainer.add_callback(StopAt(3))
        return trainer

    train.mllm.build_trainer = build_stopping
    train.mllm.app()
