"""The figure of a run's history: losses and Dice of training and validation by epoch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scripts.files import atomic_write


def draw_history(rows: pd.DataFrame, regions: Sequence[str], best_epoch: int, path: Path) -> None:
    """Draw the losses on the left and the Dice of each region on the right, of training and validation.

    Args:
        rows: of history.csv.
        regions: their names.
        best_epoch: gets a vertical line; 0: none yet.
        path: of the PNG.
    """
    from matplotlib import rc_context  # takes a third of a second
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}):  # a region may be called $WT$
        figure = Figure(figsize=(11, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        curves = [(left, "loss", "train_loss", "val_loss", "C0")]
        curves += [(right, name, f"train_dice_{name}", f"val_dice_{name}", f"C{k}") for k, name in enumerate(regions)]
        for axes, name, training, validation, colour in curves:
            validated = rows.dropna(subset=validation)
            axes.plot(rows["epoch"], rows[training], colour, alpha=0.5, label=f"{name}, training patches")
            axes.plot(
                validated["epoch"], validated[validation], colour, marker=".", label=f"{name}, validation volumes"
            )
        for axes, name in ((left, "loss"), (right, "Dice")):
            if best_epoch:
                axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best epoch, {best_epoch}")
            axes.set(xlabel="epoch", ylabel=name)
            axes.legend(fontsize="small")
        right.set_ylim(0, 1)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=100)
