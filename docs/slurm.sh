#!/bin/bash
# Runs a command in several processes, one per GPU, on one or several nodes of a cluster with SLURM:
#
#   sbatch --nodes=2 --gpus-per-node=4 docs/slurm.sh train brats \
#       --datalist brats.json --dataset_dir /data/BraTS2021 --out runs/first --requeue
#
# Submit it from the repository's root, in the Python environment that it should use. With --requeue a job whose time is up
# saves, starts again and continues. Options of sbatch come before the script and override these:
#SBATCH --nodes=1
#SBATCH --gpus-per-node=2
#SBATCH --ntasks-per-node=1 # this script; the processes of a node share its CPUs
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300 # SIGTERM this many seconds before the time is up: finish a step or a case, and save
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -uo pipefail
trap : TERM # of a preempted job: wait for its processes, which save
case "$1" in
training | evaluating | inferring) program="monai.bundle run" ;; # the long forms
*) program=bundle ;;
esac
per_node=${SLURM_GPUS_ON_NODE:-1}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000)) LOCAL_WORLD_SIZE=$per_node
export OMP_NUM_THREADS=1 # the processes of a node share its cores
# when one process has ended, the others get a minute
srun --ntasks=$((SLURM_NNODES * per_node)) --ntasks-per-node="$per_node" --wait=60 \
  --cpus-per-task=$((${SLURM_CPUS_PER_TASK:-16} / per_node)) \
  bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec python -m "$@"' bash $program "$@"
code=$?
[ $code -eq 75 ] && scontrol requeue "$SLURM_JOB_ID" # the results so far are saved; the same command continues
exit $code
