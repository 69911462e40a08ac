#!/bin/bash
# Runs a workflow, or `bundle score`, in several processes, one a GPU, on one or several nodes of a cluster with SLURM:
#
#   sbatch --nodes=2 --gpus-per-node=4 docs/slurm.sh training \
#       --config_file "['configs/train.yaml','configs/multi_gpu_train.yaml','configs/tasks/brats.yaml']" \
#       --datalist brats.json --dataset_dir /data/BraTS2021 --run_dir runs/first
#
# Submit it from the repository's root, in the Python environment that it should use. Options of sbatch stand before the
# script and win over these:
#SBATCH --nodes=1
#SBATCH --gpus-per-node=2
#SBATCH --ntasks-per-node=1 # torchrun, which starts the processes of its node
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
set -euo pipefail
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-16} # since SLURM 22.05 a step does not inherit it
export OMP_NUM_THREADS=1                             # the processes of a node share its cores
[ "$1" = score ] && program=bundle || program="monai.bundle run"
# one process that ends in an error ends the job
srun --kill-on-bad-exit=1 torchrun --nnodes="$SLURM_NNODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" \
  --rdzv_backend=c10d --rdzv_endpoint="$head:$((20000 + SLURM_JOB_ID % 10000))" --rdzv_id="$SLURM_JOB_ID" \
  -m $program "$@"
