"""What each recipe costs: weights, time of a step next to the default's, memory."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from bundle.benchmarks.memory import count_step_memory
from bundle.benchmarks.patients import write_datalist, write_patients
from bundle.benchmarks.timing import BenchmarkResult, Timing, time_in_turn
from bundle.benchmarks.variants import build_step
from scripts.data.datalist import read_datalist
from scripts.files import read_mapping
from scripts.progress import progress_bar

FOLDER = Path("configs/recipes")
FILTERS = [8, 16, 32, 64, 80, 80]  # of timed steps: a quarter of the default's
PATCH = {3: 64, 2: 128}  # of timed steps, voxels per side
CHANGES_MEMORY = {"network_def", "norm_name", "act_name", "dropout", "res_block", "region_loss", "batch_size"}
CHANGES_MEMORY |= {"recompute", "patch_size", "network_channels"}
LENGTHS = ("short", "smoke")  # recipes that set only how long to train


def measure_recipes(device: str = "cpu", repeats: int = 3, names: Sequence[str] = ()) -> BenchmarkResult:
    """Time augmentation, network, loss and optimiser of one patch by recipe, in turn with the default's.

    Args:
        device: to compute on.
        repeats: steps of each, after one that does not count.
        names: recipes; all without them.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for axes in PATCH:
            write_patients(Path(folder, f"patients{axes}"), cases=2, size=96, spacing=2.0, dims=axes)
            write_datalist(Path(folder, f"patients{axes}"), Path(folder, f"list{axes}.json"))
            _write_first_stage(Path(folder), axes)
        for name in progress_bar(names or recipe_names(), desc="recipes"):
            own = read_mapping(FOLDER / f"{name}.yaml")
            axes, filters = len(own.get("patch_size", [0, 0, 0])), own.get("filters")
            settings = {"device": device, "filters": [n // 4 for n in filters] if filters else FILTERS}
            default = _step(Path(folder), axes, None, {"device": device, "filters": FILTERS})
            step = _step(Path(folder), axes, name, settings)
            for call in (default, step):
                call()
            found = time_in_turn({"default": default, name: step}, repeats, device)
            ratios = [one / other for one, other in zip(found[name], found["default"], strict=True)]
            rows.append(Timing(name, found[name], "s", float(np.median(ratios))))
            rows.append(Timing(f"{name}: weights", [_count_weights(name) / 1e6], "M"))
            if not {*own} & CHANGES_MEMORY:
                continue
            with suppress(Exception):  # of a loss that looks at voxels or cases, which do not exist here
                rows.append(
                    Timing(
                        f"{name}: tensors of a step",
                        [count_step_memory([str(FOLDER / f"{name}.yaml")], **_without_download(own))],
                        "GiB",
                    )
                )
    return BenchmarkResult(
        "recipes",
        f"one patch of {PATCH[3]} voxels per side ({PATCH[2]} pixels in slices), features {FILTERS} or a quarter of the"
        " recipe's own; the ratio is to the default's step in the same turn",
        rows,
        {"patch": PATCH[3], "filters": FILTERS, "device": device},
        [
            "M: million weights, with the recipe's own features.",
            "GiB: counted, not measured; with the recipe's own patch and features, in half precision.",
        ],
    )


def recipe_names() -> list[str]:
    """All recipes that change more than how long is trained."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in LENGTHS)


def _without_download(own: dict[str, Any]) -> dict[str, Any]:
    """Settings without which a recipe would read a file."""
    return {"encoder_weights": None} if "encoder_weights" in own else {}


def _write_first_stage(folder: Path, axes: int) -> None:
    """The labels of the patients as the masks of a first stage."""
    for entry in read_datalist(folder / f"list{axes}.json")["training"]:
        label = folder / f"patients{axes}" / entry["label"]
        mask = folder / f"first_stage{axes}" / "masks" / f"{entry['case']}{''.join(label.suffixes)}"
        mask.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(label, mask)


def _count_weights(recipe: str) -> int:
    """The weights of a recipe's network, with its own features."""
    config = ConfigParser()
    config.read_config(["configs/train.yaml", str(FOLDER / f"{recipe}.yaml")])
    config.update({"device": "cpu"})
    config.parse()
    return sum(weight.numel() for weight in config.get_parsed_content("network_def").parameters())


def _step(folder: Path, axes: int, recipe: str | None, settings: dict[str, Any]) -> Callable[[], None]:
    """A step on one patch."""
    places = {"datalist": str(folder / f"list{axes}.json"), "dataset_dir": str(folder / f"patients{axes}")}
    chosen = read_mapping(FOLDER / f"{recipe}.yaml") if recipe else {}
    own = _without_download(chosen)
    own |= {"first_stage": str(folder / f"first_stage{axes}")} if "first_stage" in chosen else {}
    small = {"patch_size": [PATCH[axes]] * axes, "batch_size": 1, "rank": 0, "run_dir": str(folder / "run")}
    return build_step([str(FOLDER / f"{recipe}.yaml")] if recipe else [], {**places, **settings, **own, **small})[0]
