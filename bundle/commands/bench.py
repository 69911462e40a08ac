"""The `bench` command: time and memory on this machine, as ratios to the network alone."""

import importlib
import inspect
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from bundle.analysis.strict_json import to_strict_json
from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.shared import Outcome
from scripts.errors import InputError

SUBJECTS = {
    "train": "a training step: the network, the loader, the augmentation; MONAI's usual order; nnU-Net if it is there",
    "infer": "one case of 240 x 240 x 155 voxels from files to mask, next to the plain sliding window and nnU-Net's",
    "score": "one case's metrics, next to MONAI's public calls",
    "load": "memory, and time per patch, for cohorts of several sizes",
    "recipes": "weights, time of a step and memory of every recipe, next to the default",
    "slides": "memory of training patches and of inference on slides of several sizes",
    "checks": "faults that the checks of a scan find, and sound scans that they note, of phantoms or of --datalist",
    "variants": "a training step of each variant of a study (--study, --datalist), in turn with the baseline's",
    "clicks": "Dice of a run of the recipe clicks by clicks of a simulated annotator, and seconds (RUN)",
}
ASKED_FOR = ("checks", "variants", "clicks")  # not measured without being named

MEASURE = {
    "train": "measure_training",
    "infer": "measure_inference",
    "score": "measure_scoring",
    "load": "measure_loading",
    "recipes": "measure_recipes",
    "slides": "measure_slides",
    "checks": "measure_checks",
    "variants": "measure_variants",
}


@check_arguments
def bench(
    subject: Optional[
        Literal["train", "infer", "score", "load", "recipes", "slides", "checks", "variants", "clicks"]
    ] = None,
    run: Optional[Path] = None,
    *,
    out: Optional[Path] = None,
    repeats: PositiveInt = 3,
    device: Optional[str] = None,
    filters: Optional[CommaList[PositiveInt]] = None,
    patch: Optional[PositiveInt] = None,
    nnunet_python: Optional[str] = None,
    cases: CommaList[PositiveInt] = (8, 64, 512),
    picture: Optional[Path] = None,
    brats_script: Optional[Path] = None,
    sizes: CommaList[PositiveInt] = (4096, 16384),
    scale: Annotated[float, Field(gt=0)] = 1.0,
    names: CommaList[str] = (),
    phantoms: PositiveInt = 60,
    study: Optional[Path] = None,
    datalist: Optional[Path] = None,
    dataset_dir: Optional[Path] = None,
    fold: Optional[int] = None,
    clicks: PositiveInt = 10,
    seen: bool = False,
    with_: Optional[Literal["nninteractive", "sam2", "medsam"]] = None,
    channel: Optional[str] = None,
    weights: Optional[Path] = None,
) -> Outcome:
    """Measure on this machine, print medians over repeats and their ratios; minutes. Patients are synthetic.

    On a CPU seconds are those of the processor, so that other work on the machine counts little; on a GPU they are
    those of the clock.

    Examples:
        OMP_NUM_THREADS=1 python -m bundle bench train --out train.json
        OMP_NUM_THREADS=1 python -m bundle bench train --nnunet_python nnunet/bin/python
        OMP_NUM_THREADS=1 python -m bundle bench infer
        python -m bundle bench checks --datalist datalist.json --dataset_dir /data/BraTS2021
        python -m bundle bench clicks runs/clicks
        python -m bundle bench clicks runs/clicks --with sam2 --channel FLAIR
        python -m bundle bench load --cases 8,64,512 --picture load.png

    Args:
        subject: train, infer, score, load, recipes, slides, checks, variants or clicks; without it all but the last
            three.
        run: the folder of a run that was trained with the recipe clicks (for clicks).
        out: a JSON file for the numbers; docs/record/performance.md describes them. For clicks a folder, by default
            RUN/clicks, which gets clicks.csv, clicks.png and the cases that are finished; a run that was interrupted
            measures the others.
        repeats: how often each is timed, in turn.
        device: cpu or cuda; the GPU if there is one.
        filters: features of the network by level; by default small enough for a CPU, the default recipe's on a GPU.
        patch: side of the training patches in voxels; 64 on a CPU, 128 on a GPU, 32 for load. That of windows is 128.
        nnunet_python: the Python of an environment that has nnunetv2, to be measured side by side (for train and
            infer); without it, this one if nnunetv2 is in it.
        cases: how many cases, one or several numbers (for load).
        picture: a PNG file for the curves (for load).
        brats_script: `eval.py` of github.com/rachitsaluja/BraTS-2023-Metrics, to be timed too (for score).
        names: recipes, separated by commas (for recipes); all without it.
        phantoms: how many are checked (for checks); a hundred others make their profile.
        study: the YAML file of a study (for variants).
        datalist: the data list that patches are cut from (for variants), whose scans are checked (for checks), or whose
            cases are clicked (for clicks; by default that of the run).
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        fold: whose cases are clicked (for clicks); by default the test cases of the list, or without any the fold that
            the run was validated on.
        clicks: on each region of a case (for clicks).
        seen: also click cases that the run was trained on (for clicks).
        with_: a public promptable model in place of the run's network, nninteractive, sam2 or medsam, on the same cases
            and regions (for clicks; docs/prompt.md).
        channel: the one that it sees (for clicks).
        weights: the file or folder of its weights (for clicks); without it its library fetches them.
        sizes: pixels per side, one or several numbers (for slides).
        scale: the size of the scans; 1 is 240 x 240 x 155 voxels for infer and score, a side of 64 for load.
    """
    given = {name: value for name, value in locals().items() if name not in ("subject", "out")}
    warnings.filterwarnings("ignore")
    from bundle.benchmarks import timing
    from bundle.benchmarks.nnunet import peer

    given["device"] = timing.choose_device(device)
    if subject == "clicks":
        from bundle.commands.click_bench import bench_clicks

        promptable = (with_, weights, channel) if with_ else None
        return bench_clicks(run, datalist, dataset_dir, fold, clicks, seen, out, given["device"], promptable)
    if run is not None:
        raise InputError(f"{run} is one word too many for bench {subject}: a run is given for clicks alone.")
    compared = subject in (None, "train", "infer")
    given["nnunet_python"] = peer.python_with_nnunet(nnunet_python) if compared else None
    results = []
    if subject == "variants":
        given |= _variants(study, datalist, dataset_dir)
    for name in [subject] if subject else [name for name in SUBJECTS if name not in ASKED_FOR]:
        measure = getattr(importlib.import_module(f"bundle.benchmarks.{name}"), MEASURE[name])
        options = {key: value for key, value in given.items() if key in inspect.signature(measure).parameters}
        results.append(measure(**options))
        timing.print_result(results[-1])
    if out is not None:
        timing.write_results(out, results, given["device"])
    return Outcome(lambda: to_strict_json([asdict(result) for result in results]))


def _variants(study: Path | None, datalist: Path | None, dataset_dir: Path | None) -> dict[str, Any]:
    """What `measure_variants` takes, from the file of a study."""
    from bundle.benchmarks.variants import TimedVariant
    from bundle.commands.workflows import training_files
    from bundle.studies.ablation import read_study

    if study is None or datalist is None:
        raise InputError("bench variants needs --study and --datalist.")
    plan = read_study(study)
    files = {one.name: training_files(plan.task, one.recipes)[1:] for one in plan.variants}
    variants = [TimedVariant(one.name, files[one.name], dict(one.settings)) for one in plan.variants]
    return {"variants": variants, "datalist": datalist, "dataset_dir": dataset_dir or datalist.parent}
