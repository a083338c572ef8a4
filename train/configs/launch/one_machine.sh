#!/bin/bash
# A stage on all GPUs of this machine. The same command starts it and goes on with it:
#   train/configs/launch/one_machine.sh train/configs/official_finetune.yaml runs/finetune [key=value ...]
set -euo pipefail

config=$1
output=$2
shift 2

resume=()
if [ -f "$output/config.yaml" ]; then
    resume=(--resume)
fi

exec torchrun --standalone --nproc_per_node "${PROCESSES:-gpu}" --shutdown-timeout 280 \
    -m train.mllm "$config" "output=$output" "$@" "${resume[@]}"
