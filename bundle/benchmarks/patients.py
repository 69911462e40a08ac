"""Synthetic patients and their data list, for benchmarks."""

from pathlib import Path

from bundle.cohort.datalist_maker import make_datalist, read_layout
from bundle.cohort.phantom_layouts import write_phantoms
from bundle.cohort.splits import SplitOptions
from bundle.cohort.tasks import known_tasks
from scripts.files import write_json


def write_patients(folder: Path, cases: int, size: int, spacing: float, dims: int = 3) -> None:
    """Write phantoms of `size` voxels of `spacing` mm per side."""
    write_phantoms(folder, cases=cases, size=size, spacing=spacing, dims=dims)


def write_datalist(folder: Path, out: Path) -> None:
    """Write their data list, in two folds."""
    tasks = known_tasks()
    layout = read_layout(str(folder), tasks)
    write_json(out, make_datalist(str(folder), layout, tasks, SplitOptions(folds=2), workers=1).content)
