"""Time of scoring one case on one core, next to MONAI's public calls.

The case is a synthetic glioma with satellites, 240 x 240 x 155 voxels of 1 mm, and a prediction with false positives.
"""

import contextlib
import importlib
import importlib.util
import io
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from bundle.benchmarks.timing import BenchmarkResult, Timing, add_ratios, time_in_turn
from scripts.scoring import metrics
from scripts.scoring.case import Job, score_case
from scripts.scoring.lesions import BRATS_2023

SHAPE = (240, 240, 155)
REGIONS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}  # the values that the BraTS 2023 script expects


def measure_scoring(repeats: int = 3, brats_script: str | None = None, scale: float = 1.0) -> BenchmarkResult:
    """Time all metrics of one case with three regions.

    Args:
        repeats: how often each is timed.
        brats_script: `eval.py` of github.com/rachitsaluja/BraTS-2023-Metrics, to be timed in the same run; it needs
            connected-components-3d and surface-distance.
        scale: the size of the case; 1 is 240 x 240 x 155 voxels.
    """
    with tempfile.TemporaryDirectory() as folder:
        label, prediction, probability = _write_case(Path(folder), scale)
        job = Job(
            case="case",
            patient="case",
            label=str(label),
            prediction=str(prediction),
            hint="",
            probability=None,
            regions=REGIONS,
            known=[1, 2, 3],
            rename={},
            unit="mm",
            resample=False,
            brats=BRATS_2023,
            kept=str(Path(folder) / "kept.json"),
        )
        truth, predicted = (np.asanyarray(nib.load(file).dataobj) for file in (label, prediction))
        masks = [np.stack([np.isin(image, values) for values in REGIONS.values()]) for image in (truth, predicted)]
        importlib.import_module("monai.metrics")  # not timed
        calls = {
            "all metrics, from the files to the rows": lambda: _score_again(job),
            "the same with ECE and Brier score of three probability maps": lambda: _score_again(
                job._replace(probability=str(probability))
            ),
            "all metrics, masks in memory": lambda: [
                metrics.measure_region(t, p, (1.0,) * 3) for t, p in zip(*masks, strict=True)
            ],
            "MONAI's public calls for the eight metrics that it has, masks in memory": lambda: _monai_calls(*masks),
        }
        rows = [Timing(name, values) for name, values in time_in_turn(calls, repeats).items()]
        if brats_script:
            name = "BraTS 2023 script, from the files"
            rows += [Timing(name, time_in_turn({name: lambda: _brats_calls(brats_script, prediction, label)}, 1)[name])]
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            memory = pool.submit(_memory_above_arrays, job).result()
    add_ratios(rows)
    rows.append(Timing("peak memory over the two label maps", [memory], "MB"))
    lesions = [ndimage.label(mask, np.ones((3, 3, 3)))[1] for mask in (masks[0][0], masks[1][0])]
    size = " x ".join(map(str, truth.shape))
    return BenchmarkResult(
        "score",
        f"{size} voxels, three regions; WT has {lesions[0]} true and {lesions[1]} predicted lesions",
        rows,
        {"shape": list(truth.shape), "regions": REGIONS},
    )


def _write_case(folder: Path, scale: float = 1.0) -> tuple[Path, Path, Path]:
    rng = np.random.default_rng(0)
    shape = [round(n * scale) for n in SHAPE]
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) / scale for n in shape), indexing="ij"))  # mm
    truth, predicted = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    noise = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), 5 * scale)
    noise *= 5 / noise.std()  # mm, standard deviation of the boundary error
    satellites = [(*rng.integers((60, 60, 40), (180, 180, 115)), rng.integers(3, 8)) for _ in range(9)]
    for *centre, radius in [(95, 130, 80, 30), *satellites]:
        distance = np.sqrt(((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0))
        for value, part in ((2, 1.0), (3, 0.7), (1, 0.4)):
            truth[distance + noise / 2 < radius * part] = value
            predicted[distance - noise / 3 < radius * part] = value
    for _ in range(10):
        corner = (rng.integers((60, 60, 40), (180, 180, 115)) * scale).astype(int)
        predicted[tuple(slice(c, c + int(rng.integers(1, 5))) for c in corner)] = 2
    probability = np.stack([np.isin(predicted, values) for values in REGIONS.values()], axis=-1)
    probability = ndimage.gaussian_filter(probability.astype(np.float32), (1, 1, 1, 0))
    files = [folder / name for name in ("label.nii.gz", "prediction.nii.gz", "probability.nii.gz")]
    for file, voxels in zip(files, (truth, predicted, probability), strict=True):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), file)
    return files[0], files[1], files[2]


def _score_again(job: Job) -> None:
    Path(job.kept).unlink(missing_ok=True)
    score_case(job)


def _monai_calls(truth: np.ndarray, predicted: np.ndarray) -> None:
    import torch  # here, so that it is not in the process whose memory is measured
    from monai import metrics as theirs

    torch.set_num_threads(1)
    y, p = torch.from_numpy(truth[None]), torch.from_numpy(predicted[None])
    rules = {"include_background": True, "spacing": (1.0, 1.0, 1.0)}
    theirs.compute_dice(p, y, include_background=True, ignore_empty=False)
    theirs.compute_iou(p, y, include_background=True, ignore_empty=False)
    theirs.compute_hausdorff_distance(p, y, percentile=95, **rules)
    theirs.compute_hausdorff_distance(p, y, **rules)
    theirs.compute_average_surface_distance(p, y, symmetric=True, **rules)
    for tolerance in metrics.TOLERANCES:
        theirs.compute_surface_dice(p, y, [float(tolerance)] * len(REGIONS), **rules)


def _brats_calls(script: str, prediction: Path, label: Path) -> None:
    spec = importlib.util.spec_from_file_location("brats_2023", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(io.StringIO()):
        for region in REGIONS:
            module.get_LesionWiseScores(str(prediction), str(label), region, BRATS_2023.dilations)


def _memory_above_arrays(job: Job) -> float:
    """MB by which the peak exceeds a fresh process that holds both label maps."""
    arrays = [np.array(nib.load(file).dataobj) for file in (job.label, job.prediction)]
    before = _status("VmRSS")
    _score_again(job)
    return _status("VmHWM") - before if arrays else 0.0


def _status(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
