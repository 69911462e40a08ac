"""Slides of 1024 pixels with tissue, a tumour and three levels."""

from pathlib import Path

from bundle.cohort.phantom_slides import write_slides
from bundle.commands.prepare import prepare

TRAIN = ["configs/train.yaml", "configs/tasks/slide.yaml", "configs/recipes/large_images.yaml"]
TOY = {"device": "cpu", "patch_size": [64, 64], "filters": [4, 8, 8], "validation_patches": 2, "val_interval": 1}
TOY |= {"max_epochs": 2, "steps_per_epoch": 10, "batch_size": 2, "learning_rate": 0.01, "ema_decay": 0.5}


def list_slides(folder: Path) -> Path:
    """Write two slides into a folder, and their data list next to it, in two folds."""
    write_slides(folder)
    listed = folder.with_suffix(".json")
    prepare(str(folder), task="slide", out=str(listed), folds=2, workers=1)
    return listed
