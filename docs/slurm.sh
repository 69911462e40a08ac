#!/bin/bash
# Runs a command in several processes, one per GPU, on one or several nodes of a cluster with SLURM:
#
#   sbatch --nodes=2 --gpus-per-node=4 docs/slurm.sh train brats \
#       --datalist brats.json --dataset_dir /data/BraTS2021 --out runs/first
#
# Submit it from the repository's root, in the Python environment that it should use. Options of sbatch come before the
# script and override these:
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
case "$1" in
training | evaluating | inferring) program="monai.bundle run" ;; # the long forms
*) program=bundle ;;
esac
# one process that ends in an error ends the job
srun --kill-on-bad-exit=1 torchrun --nnodes="$SLURM_NNODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" \
  --rdzv_backend=c10d --rdzv_endpoint="$head:$((20000 + SLURM_JOB_ID % 10000))" --rdzv_id="$SLURM_JOB_ID" \
  -m $program "$@"
