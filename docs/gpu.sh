#!/bin/bash
# Measures training and inference on this machine's GPU, in at most eight minutes:
#
#   bash docs/gpu.sh measured
#
# Run it from the repository's root. Each phase writes its results to the folder when it ends, so that a machine that is taken
# away leaves those before; phases.txt has their seconds and exit codes. The training benchmark is the first phase and the
# last one: what differs between the two is noise. A phase that exceeds its limit leaves its log alone: on a card much slower
# than an H100, raise those of train. Further arguments go to the benchmarks, such as --nnunet_python; --device cpu
# --filters "[4,8,8]" tries the script where there is no GPU.
#
# It does not prove that a training learns as well as before (that takes loss curves of 200 steps and more, of two versions),
# nor that masks of real scans are the same (count the voxels that change): its patients are phantoms, its networks untrained.
set -u
out=${1:?give a folder for the results}
shift
mkdir -p "$out"
: > "$out/phases.txt"
phase() { # name, most seconds, command
  local name=$1 most=$2 began=$SECONDS
  shift 2
  timeout --signal=INT --kill-after=10 "$most" "$@" > "$out/$name.log" 2>&1
  echo "$name: exit code $?, $((SECONDS - began)) s" | tee -a "$out/phases.txt"
}
nvidia-smi > "$out/card.txt" 2>&1
phase train_first 100 python -m bundle bench train --out "$out/train_first.json" "$@"
phase infer 75 python -m bundle bench infer --out "$out/infer.json" "$@"
phase tests 75 python -m pytest -q -rs tests/scripts/network/test_fused_norm.py tests/scripts/inference/test_sliding_window.py \
  tests/scripts/data/test_loading.py tests/end_to_end/test_training.py -k "gpu or cuda or triton or kernel"
phase phantoms 15 python -m bundle phantom "$out/phantoms" --cases 4 --size 96 --spacing 2
phase list 15 python -m bundle prepare "$out/phantoms" --folds 2 --out "$out/list.json" --picture False
for again in once twice; do # a seed gives the same weights as far as the card's kernels do
  phase "run_$again" 45 python -m bundle train phantom --datalist "$out/list.json" --dataset_dir "$out/phantoms" \
    --out "$out/run_$again" --max_epochs 1 --steps_per_epoch 20 --seed 1
done
phase weights 10 python - "$out" << 'END'
import sys
from pathlib import Path

import torch

one, other = (torch.load(Path(sys.argv[1], f"run_{name}", "model.pt"), "cpu") for name in ("once", "twice"))
print("largest difference of a weight:", max(float((one[name] - other[name]).abs().max()) for name in one))
END
phase train_last 100 python -m bundle bench train --out "$out/train_last.json" "$@"
