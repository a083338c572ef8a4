"""`train.mllm` with chunks so small that processes need different numbers of them."""

import mllm.loss
from train.mllm import app

if __name__ == "__main__":
    mllm.loss.TEXT_CHUNK = 3
    mllm.loss.IMAGE_CHUNK = 2
    app()
