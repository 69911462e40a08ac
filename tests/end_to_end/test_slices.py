"""2D images through the same commands: masks in the format and size of the image, scores in pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import run
from PIL import Image

from bundle.commands.export import export
from bundle.commands.prepare import prepare
from bundle.commands.report import report
from scripts.data import pictures
from scripts.scoring.cohort import read_cases

SMALL = {"device": "cpu", "patch_size": [32, 32], "filters": [8, 16, 16]}
SHORT = {"max_epochs": 2, "steps_per_epoch": 40, "val_interval": 1, "learning_rate": 3.0e-3, "ema_decay": 0.9}


pytestmark = pytest.mark.usefixtures("at_root")


def disc(shape: tuple[int, int], centre: tuple[int, int], radius: float) -> np.ndarray:
    x, y = np.indices(shape)
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2


def write_patients(folder: Path) -> Path:
    """Five patients of three slices of 50 x 40 pixels in three colours; a tumour bright in the second, or none."""
    rng = np.random.default_rng(0)
    for patient in range(5):
        case = folder / f"TCGA_{patient}"
        case.mkdir(parents=True)
        for k in range(1, 4):
            head = disc((50, 40), (25, 20), 17)
            tumour = disc((50, 40), rng.integers(17, 25, 2), 6) & head & (k > 1)
            image = np.where(head[..., None], rng.integers(80, 120, (50, 40, 3)), 0)
            image[..., 1] += 100 * tumour
            Image.fromarray(image.swapaxes(0, 1).astype(np.uint8)).save(case / f"{case.name}_{k}.tif")
            pictures.write_picture(case / f"{case.name}_{k}_mask.tif", 255 * tumour.astype(np.uint8))
    return folder


def write_stack(folder: Path) -> Path:
    """Twelve sections with dark membranes, as two stacks; membrane is 0."""
    rng = np.random.default_rng(0)
    x, y = np.indices((50, 40))
    membranes = [((x + k) % 12 < 3) | ((y + 2 * k) % 14 < 3) for k in range(12)]
    images = [np.where(m, 60, 180) + rng.integers(-20, 20, m.shape) for m in membranes]
    pictures.write_picture(folder / "train-volume.tif", *(image.astype(np.uint8) for image in images))
    pictures.write_picture(folder / "train-labels.tif", *(np.where(m, 0, 255).astype(np.uint8) for m in membranes))
    return folder


def train_and_evaluate(source: Path, task: str, tmp_path: Path, folds: int) -> tuple[Path, dict, Path]:
    datalist, results = tmp_path / "datalist.json", tmp_path / "run"
    prepare(str(source), out=str(datalist), folds=folds, picture=False, workers=1)
    given = {"datalist": str(datalist), "dataset_dir": str(source)}
    training = ["configs/train.yaml", f"configs/tasks/{task}.yaml"]
    run("training", config_file=training, run_dir=str(results), **given, **SMALL, **SHORT)
    evaluate = ["configs/evaluate.yaml", str(results / "settings.yaml")]
    run("evaluating", config_file=evaluate, device="cpu", score_workers=1, **given)
    return results, json.loads(datalist.read_text()), results / "evaluation"


def segment(results: Path, scans: Path, folder: Path) -> list[str]:
    files = ["configs/inference.yaml", str(results / "settings.yaml")]
    run("inferring", config_file=files, device="cpu", input=str(scans), output_dir=str(folder))
    return sorted(path.name for path in folder.glob("[!.]*"))


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_patient_slices_train_score_in_pixels_and_segment_as_tiff(tmp_path):
    source = write_patients(tmp_path / "patients")
    results, content, scored = train_and_evaluate(source, "lgg", tmp_path, folds=5)
    held_out = [entry for entry in content["training"] if entry["fold"] == 0]
    frame = read_cases(scored / "cases.csv")
    found = frame.query("metric == 'dice'").set_index("case")["value"]
    assert set(frame.query("metric == 'hd95'")["unit"]) == {"pixel"}
    assert set(found.index) == {entry["case"] for entry in held_out}
    for entry in held_out[1:]:
        mask, truth = (
            pictures.read_picture(scored / "masks" / f"{entry['case']}.tif"),
            pictures.read_picture(source / entry["label"]),
        )
        assert set(np.unique(mask)) <= {0, 255}
        assert dice(mask > 0, truth > 0) == pytest.approx(found[entry["case"]])
        assert found[entry["case"]] > 0.7  # bright discs are easy to learn

    patient = source / held_out[0]["patient"]
    names = segment(results, patient, tmp_path / "masks")
    assert names == [f"{patient.name}_{k}.tif" for k in (1, 2, 3)]
    for name in names:
        assert np.array_equal(
            pictures.read_picture(tmp_path / "masks" / name), pictures.read_picture(scored / "masks" / name)
        )

    report(str(scored))
    export(str(results), out=str(tmp_path / "dist"), formats="onnx")
    package = tmp_path / "dist" / "lgg_segmentation-0.1.0"
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        "configs/inference.yaml",
        "--device",
        "cpu",
    ]
    subprocess.run([*command, "--input", str(patient), "--output_dir", "masks"], cwd=package, check=True)
    for name in names:
        alone = Image.open(package / "masks" / name)
        assert (alone.size, alone.mode) == ((50, 40), "L")
        assert np.array_equal(
            pictures.read_picture(package / "masks" / name), pictures.read_picture(tmp_path / "masks" / name)
        )


def test_stack_trains_in_blocks_and_is_segmented_as_one_stack(tmp_path):
    source = write_stack(tmp_path / "sections")
    results, content, scored = train_and_evaluate(source, "isbi2012", tmp_path, folds=3)
    chosen = [entry["slice"] for entry in content["training"] if entry["fold"] == 0]
    assert chosen == [0, 1, 2]
    assert sorted(path.name for path in (scored / "masks").glob("[!.]*")) == [f"train_{k}.tif" for k in chosen]

    assert segment(results, source / "train-volume.tif", tmp_path / "masks") == ["train.tif"]
    stack = tmp_path / "masks" / "train.tif"
    assert pictures.count_pages(stack) == 12
    for k in chosen:
        mask, truth = pictures.read_picture(f"{stack}#{k}"), pictures.read_picture(source / f"train-labels.tif#{k}")
        assert set(np.unique(mask)) == {0, 255}
        assert np.array_equal(mask, pictures.read_picture(scored / "masks" / f"train_{k}.tif"))
        assert dice(mask == 0, truth == 0) > 0.7
