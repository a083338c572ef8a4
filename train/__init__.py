"""Training: everything that makes weights. Imports unitok, mllm and eval; nothing imports it."""

import logging

# It misses an optional package aloud whenever peft is imported, wanted or not.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
