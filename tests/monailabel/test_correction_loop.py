"""Segment, correct by clicks, submit, train: what the second round gains on scans that were in no training.

A simulated annotator clicks in the middle of the largest error. `python -m pytest -s` prints the numbers of
docs/corrections.md.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import run

from bundle.commands.export import export
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from scripts.training.click_simulation import find_next_click
from tests.made import at_repository_root
from tests.made.monai_label import Served, needs_server, serve, voxels

pytestmark = needs_server
REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
PAINTED = {"WT": 2, "TC": 1, "ET": 4}  # in this order
CORRECTED, HELD_OUT, CLICKS, EPOCHS = 8, 12, 10, 20  # scans, scans, at most per region, of 20 steps


@pytest.fixture(scope="module")
def first_network(tmp_path_factory) -> Path:
    """A package that was trained with clicks on four patients."""
    folder = tmp_path_factory.mktemp("first")
    phantom(folder / "patients", cases=4, size=32, spacing=6.0)
    prepare(str(folder / "patients"), out=str(folder / "list.json"), folds=4, picture=False, workers=1)
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", "configs/recipes/clicks.yaml"]
    with at_repository_root():
        run(
            "training", config_file=files, run_dir=str(folder / "run"), datalist=str(folder / "list.json"),
            dataset_dir=str(folder / "patients"), device="cpu", patch_size=[16, 16, 16], filters=[8, 16, 32],
            learning_rate=0.01, max_epochs=30, steps_per_epoch=20, val_interval=5, ema_decay=0.9,
        )  # fmt: skip
        export(folder / "run", out=folder / "dist")
    (package,) = (path for path in (folder / "dist").iterdir() if path.is_dir())
    return package


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> Path:
    """New patients, on noisier scans."""
    folder = tmp_path_factory.mktemp("new") / "patients"
    phantom(folder, cases=CORRECTED + HELD_OUT, size=32, spacing=6.0, seed=1, noise=2.0)
    return folder


def regions_of(labels: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.isin(labels, values) for name, values in REGIONS.items()}


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def mean_dice(labels: np.ndarray, truth: np.ndarray) -> float:
    """The mean of the regions that the reference has."""
    pairs = zip(regions_of(labels).values(), regions_of(truth).values(), strict=True)
    return statistics.fmean(dice(mask, true) for mask, true in pairs if true.any())


def read_truth(patient: Path) -> np.ndarray:
    return voxels(patient / f"{patient.name}_seg.nii.gz")


def correct(server: Served, case: str, automatic: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, int]:
    """The label map after the clicks of the simulated annotator, and their number."""
    painted, number = np.zeros_like(automatic), 0
    for region, mask in regions_of(automatic).items():
        clicks: dict[bool, list] = {True: [], False: []}
        for _ in range(CLICKS):
            if (click := find_next_click(mask, regions_of(truth)[region])) is None:
                break
            clicks[click.positive].append(list(map(int, click.voxel)))
            answer, _ = server.click(case, region, foreground=clicks[True], background=clicks[False])
            mask, number = np.asarray(answer.dataobj) > 0, number + 1
        painted[mask] = PAINTED[region]
    return painted, number


def play(package: Path, patients: Path, folder: Path, by_clicks: bool) -> Mapping[str, list[float]]:
    """Of one round of the loop: Dice of each scan before and after, and the clicks of each corrected one."""
    folder.mkdir()
    cases = sorted(path.name for path in patients.iterdir())
    found: dict[str, list[float]] = {name: [] for name in ("automatic", "submitted", "clicks", "before", "after")}
    with serve(package, patients, folder) as server:
        for case in cases[:CORRECTED]:
            truth, mask = read_truth(patients / case), server.infer(folder / "mask.nii.gz", image=case)
            labels, clicks = correct(server, case, mask, truth) if by_clicks else (mask, 0)
            grid = nib.load(folder / "mask.nii.gz").affine
            nib.save(nib.Nifti1Image(labels.astype(np.uint8), grid), folder / "corrected.nii.gz")
            server.ask("PUT", f"/datastore/label?image={case}&tag=final", files={"label": folder / "corrected.nii.gz"})
            found["automatic"].append(mean_dice(mask, truth))
            found["submitted"].append(mean_dice(labels, truth))
            found["clicks"].append(clicks)
        for moment in ("before", "after"):
            if moment == "after":
                server.post(f"/train/{server.name}", {"max_epochs": EPOCHS, "device": "cpu"})
                server.await_end("/train/")
            for case in cases[CORRECTED:]:
                mask = server.infer(folder / "mask.nii.gz", image=case)
                found[moment].append(mean_dice(mask, read_truth(patients / case)))
    return found


def describe(found: Mapping[str, list[float]]) -> dict[str, str]:
    """Mean and standard deviation over scans."""
    gains = [after - before for before, after in zip(found["before"], found["after"], strict=True)]
    rows = {**found, "gain": gains}
    spread = {name: f"{statistics.fmean(row):.3f} +- {statistics.stdev(row):.3f}" for name, row in rows.items()}
    return {**spread, "better": f"{sum(gain > 0 for gain in gains)} of {len(gains)}"}


def test_corrections_by_clicks_improve_masks_of_other_scans(first_network, hospital, tmp_path):
    found = []
    for name in ("clicks", "automatic masks"):
        found.append(play(first_network, hospital, tmp_path / name, by_clicks=name == "clicks"))
        print(json.dumps({name: describe(found[-1])}, indent=2))
    clicked, untouched = found
    assert statistics.fmean(clicked["submitted"]) > statistics.fmean(clicked["automatic"])
    assert clicked["before"] == untouched["before"]
    assert statistics.fmean(clicked["after"]) > statistics.fmean(clicked["before"])
    assert statistics.fmean(clicked["after"]) > statistics.fmean(untouched["after"])
