"""Several processes train one network: the same data rule, metrics over all cases, one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.checkpoint import read_weights
from scripts.scoring import read_cases

ROOT = Path(__file__).parents[2]
KNOBS = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "overlap": 0.0, "fold": 0, "seed": 1}


# slow: torchrun starts two processes, each with 6 s of imports on a core that they share
@pytest.mark.slow
def test_two_processes_validate_as_one_would_and_only_the_first_writes(cohort, tmp_path, small_train):
    content = json.loads(cohort.datalist.read_text())
    for entry, fold in zip(content["training"], (0, 0, 0, 1), strict=True):  # three cases to share out among two
        entry["fold"] = fold
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    given = {"datalist": str(tmp_path / "datalist.json"), "dataset_dir": str(cohort.dataset_dir)}
    run_dir = tmp_path / "two"
    files = ["configs/train.yaml", "configs/multi_gpu_train.yaml", "configs/tasks/phantom.yaml"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "monai.bundle",
    ]
    command += ["run", "training", "--config_file", str(files), "--run_dir", str(run_dir)]
    knobs = {**given, **KNOBS, "max_epochs": 2, "steps_per_epoch": 3, "val_interval": 2, "ema_decay": 0.5}
    command += [part for name, value in knobs.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1, "each process told the epoch"

    alone = small_train(**given, **KNOBS)
    weights = read_weights(run_dir / "model.pt")
    alone.get_parsed_content("average").network.load_state_dict(weights, strict=False)  # all but the heads
    evaluator = alone.get_parsed_content("validate::evaluator")
    alone.get_parsed_content("best")  # counts components, as in training
    evaluator.run()
    chosen = json.loads((run_dir / "knobs.yaml").read_text().splitlines()[2].partition(": ")[2])
    for name in ("dice_WT", "dice_TC", "dice_ET"):
        assert chosen[name] == pytest.approx(evaluator.state.metrics[name], abs=1e-6)
    table = read_cases(run_dir / "validation" / "cases.csv")
    own = alone.get_parsed_content("validate::key_metric::val_score").cases
    assert table[["case", "region", "metric", "unit", "note"]].equals(own[["case", "region", "metric", "unit", "note"]])
    assert table["value"].to_numpy() == pytest.approx(own["value"].to_numpy(), abs=1e-6)
    assert len({*table["case"]}) == 3
    smallest = yaml.safe_load((run_dir / "knobs.yaml").read_text())["min_component_ml"]
    assert smallest == alone.get_parsed_content("validate::components").choose()


def test_processes_without_torchrun_are_refused_in_a_sentence(cohort):
    files = ["configs/train.yaml", "configs/multi_gpu_train.yaml", "configs/tasks/phantom.yaml"]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(files)]
    command += ["--datalist", str(cohort.datalist), "--dataset_dir", str(cohort.dataset_dir)]
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "torchrun" in done.stderr.strip().splitlines()[-1]
