"""The `phantom` command: write synthetic patients."""

import shlex
from pathlib import Path

from bundle.cohort.phantom_layouts import write_phantoms
from bundle.commands.arguments import check_arguments


@check_arguments
def phantom(
    out: Path,
    *,
    cases: int = 8,
    layout: str = "brats2021",
    dims: int = 3,
    seed: int = 0,
    size: int = 64,
    spacing: float = 3.0,
    unlabelled: int = 0,
    noise: float = 1.0,
) -> None:
    """Write synthetic patients with brain tumours: T1, T1c, T2, FLAIR and a label each.

    Of every four patients one is typical, one has a small tumour, one several, one a tumour without enhancement. The
    same seed gives the same voxels, and patient k is the same however many are asked for.

    Examples:
        python -m bundle phantom phantoms
        python -m bundle phantom phantoms --cases 20 --layout msd --unlabelled 4
        python -m bundle phantom slices --dims 2 --size 128 --spacing 1.5

    Args:
        out: the folder to make; it must not exist, or be empty.
        cases: how many cases with a label. In brats2023 the third is the second's second visit, with a grown tumour.
        layout: brats2021, brats2023, brats_ped, msd (Decathlon, one 4D file per case) or nnunet (v2).
        dims: 3, or 2 for the one axial slice with most tumour.
        seed: of the cohort.
        size: voxels per side.
        spacing: mm between voxels. The head takes 192 mm, or less where size times spacing is less.
        unlabelled: how many further cases without a label.
        noise: the noise of each patient is multiplied by a factor between 1 and this one, graded over the patients, so
            that some are harder to segment than others.

    Raises:
        InputError: an argument is out of range, or `out` holds something or cannot be written.
    """
    patients = write_phantoms(str(out), cases, layout, dims, seed, size, spacing, unlabelled, noise)
    without = f" and {unlabelled} without a label" if unlabelled else ""
    print(f"{cases} synthetic cases{without} written to {out} in the layout {layout}.")
    labelled = len(set(patients[:cases]))
    if labelled == 1:
        print("a data list needs two labelled patients: make more with --cases.")
        return
    options = f" --folds {labelled}" if labelled < 5 else ""  # the default of `prepare` is 5
    options += " --allow_unlabelled" if unlabelled else ""
    print(f"next: python -m bundle prepare {shlex.quote(str(out))} --out datalist.json{options}")
