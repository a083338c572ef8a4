#!/bin/bash
# A stage on the machines of a Slurm job. The same command starts it and goes on with it:
#   sbatch train/configs/launch/slurm.sh train/configs/official_pretrain.yaml runs/pretrain [key=value ...]
# Five minutes before the time is up Slurm sends SIGTERM, and the run saves.
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --signal=TERM@300
set -euo pipefail

config=$1
output=$2  # on a disk that all machines share
shift 2

# Asked here, once for all machines: the first of them would make the folder under the others' eyes.
resume=()
if [ -f "$output/config.yaml" ]; then
    resume=(--resume)
fi

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${GPUS_PER_NODE:-8}" \
    --rdzv_backend c10d --rdzv_endpoint "$head:29500" --shutdown-timeout 280 \
    -m train.mllm "$config" "output=$output" "$@" "${resume[@]}"
