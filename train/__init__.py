"""Training: everything that makes weights. Imports unitok, mllm and eval; nothing imports it."""
