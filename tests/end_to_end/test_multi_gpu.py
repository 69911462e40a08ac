"""Several processes train one network and share the cases to segment and to score."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import run

from scripts.network.weights import read_weights
from scripts.scoring.cohort import read_cases
from tests.made import ROOT

SMALL = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "overlap": 0.0}
LEARN = {
    **SMALL,
    **{"fold": 0, "seed": 1, "max_epochs": 2, "steps_per_epoch": 3, "val_interval": 2, "ema_decay": 0.5},
    # sums in another order differ in the last digit, which half precision and Adam's quotients would make large
    **{"amp": False, "optimizer::_target_": "torch.optim.SGD", "learning_rate": 0.1},
}
TOGETHER = ["configs/train.yaml", "configs/multi_gpu_train.yaml", "configs/tasks/phantom.yaml"]
ALONE = [name for name in TOGETHER if "multi" not in name]
SEGMENT = ["configs/inference.yaml", "configs/tasks/phantom.yaml"]
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
EVALUATE = ["configs/evaluate.yaml", "configs/tasks/phantom.yaml"]
SRUN = """\
number=${1#--ntasks=} code=0 started=()
while [[ $1 == --* ]]; do shift; done
for ((k = 0; k < number; k++)); do
  SLURM_NTASKS=$number SLURM_PROCID=$k SLURM_LOCALID=$k "$@" &
  started+=($!)
done
for process in "${started[@]}"; do wait "$process" || code=$?; done
exit $code
"""


def workflow(run_id: str, files: Sequence[str], **settings: object) -> list[str]:
    words = ["-m", "monai.bundle", "run", run_id, "--config_file", str(list(files))]
    return [*words, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]


def done(command: Sequence[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.run(
        command, cwd=ROOT, env={**kept, **given}, capture_output=True, text=True, timeout=300, check=False
    )


def in_two(run_id: str, files: Sequence[str], **settings: object) -> subprocess.CompletedProcess[str]:
    return done([*LAUNCHER, *workflow(run_id, files, **settings)])


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Simulate a cluster of one node with two GPUs for docs/slurm.sh; gives the environment of a job."""
    for name, text in {"srun": SRUN, "scontrol": "echo 127.0.0.1"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_NODELIST": "here"}
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**job, "SLURM_JOB_ID": str(os.getpid()), "PATH": path}


@pytest.fixture
def checkpoint(small_train, tmp_path):
    """Untrained weights."""
    torch.manual_seed(0)
    network = small_train(deep_supervision=False).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return str(tmp_path / "model.pt")


def test_two_processes_learn_what_one_does_with_twice_the_batch(cohort, tmp_path, small_train, slurm):
    content = json.loads(cohort.datalist.read_text())
    for entry, fold in zip(content["training"], (0, 0, 0, 1), strict=True):  # three cases to share out among two
        entry["fold"] = fold
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    given = {"datalist": str(tmp_path / "datalist.json"), "dataset_dir": str(cohort.dataset_dir), **LEARN}

    words = workflow(
        "training", TOGETHER, **given, run_dir=tmp_path / "two", batch_size=1, cache_dir=tmp_path / "cache"
    )
    two = done(["bash", "docs/slurm.sh", *words[words.index("training") :]], **slurm)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("epoch 2/2") == two.stdout.count("run: ") == 1, "each process told the epoch"
    run("training", config_file=ALONE, **given, run_dir=str(tmp_path / "one"), batch_size=2, device="cpu")

    learned, expected = (read_weights(tmp_path / name / "model.pt") for name in ("two", "one"))
    for name, value in expected.items():
        assert learned[name] == pytest.approx(value, abs=1e-5), name
    chosen, alone = (yaml.safe_load((tmp_path / name / "settings.yaml").read_text()) for name in ("two", "one"))
    assert chosen["min_component_ml"] == alone["min_component_ml"]
    table, own = (read_cases(tmp_path / name / "validation" / "cases.csv") for name in ("two", "one"))
    assert len({*table["case"]}) == 3
    assert table[["case", "region", "metric"]].equals(own[["case", "region", "metric"]])
    scored = table["metric"] == "dice"
    assert table["value"][scored].to_numpy() == pytest.approx(own["value"][scored].to_numpy(), abs=1e-3)


def test_two_processes_segment_as_one_and_name_a_damaged_scan(cohort, tmp_path, checkpoint):
    given = {**SMALL, "checkpoint": checkpoint, "device": "cpu"}
    run("inferring", config_file=SEGMENT, input=str(cohort.dataset_dir), output_dir=str(tmp_path / "one"), **given)
    scans = tmp_path / "scans"
    subprocess.run(["cp", "-r", cohort.dataset_dir, scans], check=True)
    damaged = sorted(scans.rglob("*_t1.nii.gz"))[3]  # the second process's second
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:200])

    failed = in_two("inferring", SEGMENT, input=scans, output_dir=tmp_path / "two", **given)
    assert failed.returncode == 1
    assert failed.stderr.count("1 of 5 cases could not be segmented") == 1
    assert failed.stderr.count(f"{damaged} cannot be read") == 1
    assert len(list((tmp_path / "two").glob("*.nii.gz"))) == 4

    damaged.write_bytes(whole)
    resumed = in_two("inferring", SEGMENT, input=scans, output_dir=tmp_path / "two", resume=True, **given)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("of 5 cases are already in") == resumed.stdout.count("masks: ") == 1
    masks = sorted((tmp_path / "one").glob("*.nii.gz"))
    assert len(masks) == 5
    for mask in masks:
        assert (tmp_path / "two" / mask.name).read_bytes() == mask.read_bytes()


def test_two_processes_segment_and_score_as_one(cohort, tmp_path, checkpoint):
    given = {**SMALL, "checkpoint": checkpoint, "part": "labelled", "score_workers": 1, "device": "cpu"}
    given |= {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir)}
    two = in_two("evaluating", EVALUATE, output_dir=tmp_path / "two", **given)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("every number: ") == 1
    run("evaluating", config_file=EVALUATE, output_dir=str(tmp_path / "one"), **given)
    assert (tmp_path / "two" / "cases.csv").read_bytes() == (tmp_path / "one" / "cases.csv").read_bytes()


def test_two_processes_share_the_scoring_and_write_one_table(cohort, tmp_path, slurm):
    masks = tmp_path / "masks"
    masks.mkdir()
    content = json.loads(cohort.datalist.read_text())
    for entry in content["training"]:  # a perfect mask for all but the last
        shutil.copy(cohort.dataset_dir / entry["label"], masks / f"{entry['case']}.nii.gz")
    (masks / f"{content['training'][-1]['case']}.nii.gz").unlink()
    words = ["-m", "bundle", "score", str(masks), "--datalist", str(cohort.datalist), "--part", "labelled"]
    words += ["--dataset_dir", str(cohort.dataset_dir)]
    alone = done([sys.executable, *words, "--out", str(tmp_path / "one")])
    two = done(["bash", "docs/slurm.sh", *words[words.index("score") :], "--out", str(tmp_path / "two")], **slurm)
    assert alone.returncode == 1, alone.stderr  # one of them has no mask
    assert two.returncode == 1
    assert two.stdout == alone.stdout.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    assert two.stderr.count("could not be scored") == 1
    for table in ("cases.csv", "lesions.csv"):
        assert (tmp_path / "two" / table).read_bytes() == (tmp_path / "one" / table).read_bytes()


def test_processes_without_torchrun_are_refused_in_a_sentence(cohort):
    words = workflow("training", TOGETHER, datalist=cohort.datalist, dataset_dir=cohort.dataset_dir)
    refused = done([sys.executable, *words])
    assert refused.returncode == 2
    assert "torchrun" in refused.stderr.strip().splitlines()[-1]


def start_two(**settings: object) -> list[subprocess.Popen[str]]:
    """Two processes of a training, started without torchrun, which would send each SIGTERM to both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *workflow("training", TOGETHER, **settings)]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def finish(processes: list[subprocess.Popen[str]], code: int) -> None:
    for process in processes:
        output = process.communicate(timeout=200)[0]
        assert process.returncode == code, output


@pytest.mark.slow(reason="two processes are started three times, each with 6 s of imports on cores that they share")
def test_sigterm_to_one_process_stops_all_after_the_same_step(cohort, tmp_path):
    content = json.loads(cohort.datalist.read_text())
    for entry in content["training"]:
        entry["fold"] %= 2  # two cases to validate on
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    given = {"datalist": str(tmp_path / "datalist.json"), "dataset_dir": str(cohort.dataset_dir), **LEARN}
    given |= {"max_epochs": 2, "steps_per_epoch": 40, "val_interval": 2, "cache_dir": str(tmp_path / "cache")}
    finish(start_two(**given, run_dir=tmp_path / "whole"), 0)

    stopped = start_two(**given, run_dir=tmp_path / "stopped")
    checkpoint, deadline = tmp_path / "stopped" / "checkpoint.pt", time.monotonic() + 200
    while not checkpoint.exists() and stopped[1].poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    stopped[1].send_signal(signal.SIGTERM)
    finish(stopped, 143)
    assert 40 < torch.load(checkpoint, weights_only=True)["engine"]["iteration"] < 80
    finish(start_two(**given, resume=tmp_path / "stopped"), 0)

    learned, expected = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("stopped", "whole"))
    for name, value in expected["network"].items():
        assert torch.equal(learned["network"][name], value), name
