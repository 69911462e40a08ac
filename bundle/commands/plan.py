"""The `plan` command: decide grid, patch, network and batch for a cohort and a memory, and write why."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from monai.bundle import ConfigParser
from pydantic import Field, PositiveInt
from rich.console import Console

from bundle.analysis.strict_json import to_strict_json
from bundle.benchmarks.steps import measure_steps
from bundle.cohort.case_sizes import read_case_sizes
from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import Outcome
from bundle.commands.workflows import find_config, training_files
from bundle.commands.workflows import list_configs as list_choices
from bundle.studies.decisions import Cohort, describe_folds
from bundle.studies.plan import CountedOutputs, Search, make_plan
from bundle.studies.plan_file import decide_length, list_configurations, write_plan
from bundle.studies.step_memory import StepMemory
from scripts.data import datalist as lists
from scripts.data.slides import is_slide
from scripts.errors import InputError
from scripts.recipes import read_overrides
from scripts.workflow import check_device, default_device

__all__ = ["list_choices", "plan"]
USUAL_GIB = 8.0  # of a small card, and what nnU-Net plans for
FIRST_STAGE = (
    "Cascade: first plan --configuration 3d_lowres and cross-validate it: `python -m bundle crossval {task} low.yaml"
    " --datalist {datalist} --out runs/coarse`; this plan is of the second stage, which sees its masks"
)


@check_arguments
def plan(
    task: str,
    *recipes: str,
    datalist: Path,
    dataset_dir: Optional[Path] = None,
    out: Path = Path("plan.yaml"),
    configuration: Optional[Literal["2d", "3d_fullres", "3d_lowres", "3d_cascade"]] = None,
    gpu_gb: Optional[Annotated[float, Field(gt=0)]] = None,
    measure: bool = False,
    hours: Optional[Annotated[float, Field(gt=0)]] = None,
    like: Optional[Literal["nnunet"]] = None,
    device: Optional[str] = None,
    workers: Optional[PositiveInt] = None,
    overwrite: bool = False,
) -> Outcome:
    """Decide grid, patch, network, batch and sampling for a cohort and a memory; write each with its reason.

    Reads every scan once (sizes, intensities, components; kept next to the list), without the patients held out for
    the test. The file overrides a training like a recipe: `python -m bundle train TASK plan.yaml ...`.

    Examples:
        python -m bundle plan brats --datalist brats.json --dataset_dir /data/BraTS2021 --gpu_gb 11
        python -m bundle plan brats --datalist brats.json --measure --hours 8 --out night.yaml
        python -m bundle plan brats segresnet --datalist brats.json --out segresnet_plan.yaml
        python -m bundle plan brats --datalist brats.json --like nnunet

    Args:
        task: what is segmented: a name from the list below, or a YAML file.
        recipes: what the training will use too: the memory is that of their network; what they set is left as it is.
        datalist: the data list (`python -m bundle prepare`).
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        out: the YAML file to write.
        configuration: 2d, 3d_fullres, 3d_lowres or 3d_cascade; by default 3d_fullres, of pictures 2d.
        gpu_gb: memory to plan for, in GiB; by default that of the GPU, or 8 without one.
        measure: take real steps on the device, read their peak memory and time, and plan by these.
        hours: length of the training; epochs need --measure, otherwise only max_minutes is set.
        like: nnunet: by the rules of nnU-Net 2.8.1, to compare with it.
        device: cpu or cuda, for --measure; the GPU if there is one.
        workers: processes that read the scans; one per core by default.
        overwrite: replace an existing file.

    Raises:
        InputError: an option, a recipe or the list is wrong, nothing fits the memory, or `out` exists.
    """
    _check_options(out, overwrite, like, measure, configuration)
    if configuration == "3d_cascade" and "cascade" not in recipes:
        recipes = (*recipes, "cascade")  # whose masks are input channels
    files = training_files(task, recipes)
    content, root = lists.read_datalist(datalist), dataset_dir or datalist.parent
    if any(is_slide(name) for entry in content["training"] for name in lists.entry_files(entry)):
        raise InputError(
            f"{datalist} is of slides, which are larger than memory: set patch_size yourself (docs/large-images.md)."
        )
    config = _read_config(files, content)
    ask = config.get_parsed_content
    lists.require_same_task(content, ask("channels"), ask("label_scheme"), ask("labels"))
    lists.check_split(content)
    lists.check_files(content, [e for e in content["training"] if e.get("split") != "test"], root, hashes=False)
    fixed = _set_by_recipes(recipes)
    where = device or default_device()
    check_device(where)
    gib = gpu_gb or (torch.cuda.mem_get_info(where)[1] / 2**30 if where.startswith("cuda") else USUAL_GIB)

    sizes = read_case_sizes(_read_config(training_files(task, ()), content), content, datalist, root, workers)
    folds = {}
    for fold in sorted({entry["fold"] for entry in content["training"] if "fold" in entry}):
        folds[fold] = len(lists.patients_in_part(content, "validation", fold))
    cohort = Cohort(sizes, ask("channels"), ask("regions"), content.get("unit", "mm"), folds)
    data = {"datalist": str(datalist), "dataset_dir": str(root), "device": where, "verify_hashes": False}
    taken = partial(measure_steps, files)

    def search_of(order: Sequence[int]) -> Search:
        if like == "nnunet":
            return CountedOutputs(order, len({0, *ask("labels").values()}), gib)
        own = (lambda settings: taken({**data, **settings})) if measure else None
        return StepMemory(config, gib, order, fixed, own)

    made = make_plan(cohort, configuration, search_of, like, fixed)
    length = decide_length(hours, ask("steps_per_epoch"), made.step)
    patients, low = len({size.patient for size in sizes}), made.configuration in ("3d_lowres", "3d_cascade")
    words = [
        f"python -m bundle {'crossval' if low else 'train'}",
        task,
        *recipes,
        out.as_posix(),
        f"--datalist {datalist}",
    ]
    words += [f"--dataset_dir {dataset_dir}"] if dataset_dir else []
    stages = {"3d_lowres": "--out runs/coarse", "3d_cascade": "--first_stage runs/coarse --out runs/fine"}
    words += [stages[made.configuration]] if made.configuration in stages else []
    about = f"{len(sizes)} scans of {patients} patients, none of them held out for the test"
    head = [
        f"Plan of {made.configuration} for {task} by {datalist.name}: {about}",
        f"Data list: sha256 {lists.datalist_hash(content)}",
        f"Memory: {_memory_in_words(gib, like, made.step, where)}",
        describe_folds(cohort),
        *([FIRST_STAGE.format(task=task, datalist=datalist)] if made.configuration == "3d_cascade" else []),
        f"Train: {' '.join(words)}",
    ]
    write_plan(out, head, made, length)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    for line in [*head[:1], *head[2:-1], *list_configurations(made)]:
        say(line)
    for line in [*made.lines, *length]:
        say(f"{line.setting}: {line.value}\n    {line.reason}")
    say(f"written: {out}\n{head[-1]}")
    values = {line.setting: line.value for line in [*made.lines, *length]}
    return Outcome(
        lambda: to_strict_json({"configuration": made.configuration, "settings": values, "missing": made.exists})
    )


def _check_options(out: Path, overwrite: bool, like: str | None, measure: bool, configuration: str | None) -> None:
    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out is {out}: give the name of a file that ends in .yaml.")
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already: give another --out, or --overwrite to replace it.")
    if like and measure:
        raise InputError("--like nnunet counts convolution outputs and measures nothing: leave --measure out.")
    if measure and configuration == "3d_cascade":
        raise InputError("steps of a cascade need the masks of its first stage: leave --measure out.")


def _read_config(files: Sequence[str], content: dict[str, Any]) -> ConfigParser:
    config = ConfigParser()
    config.read_config(files)
    config.update({"device": "cpu", "num_workers": 0, "world_size": 1, "rank": 0})
    if all(name.casefold() == "ct" for name in content["channels"]):
        config.update({"normalize": "hu_window"})  # its background is cut off by value
    config.parse()
    axes, patch = content.get("dimensions", 3), config.get_parsed_content("patch_size")
    if len(patch) != axes:  # a task of volumes for slices
        config.update({"patch_size": [*patch, *patch][:axes]})
        config.parse()
    return config


def _set_by_recipes(recipes: Sequence[str]) -> set[str]:
    """What recipes set; a patch cannot be planned if one does."""
    fixed = set()
    for name in recipes:
        own = {place for place in read_overrides(find_config("recipe", name)) if not place.startswith("+")}
        if "patch_size" in own:
            raise InputError(f"recipe {name} sets patch_size, which a plan decides: leave the recipe out.")
        fixed |= own
    return fixed


def _memory_in_words(gib: float, like: str | None, step: Any, device: str) -> str:
    if like:
        return f"{gib:g} GB, by nnU-Net's count of convolution outputs"
    if step is None:
        return f"{gib:.3g} GiB, by the tensors of a step, counted on the network in half precision; not measured"
    return f"{step.gib:.2f} of {gib:.3g} GiB and {step.seconds:.3g} s for a step, measured on {device}"
