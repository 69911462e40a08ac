"""A cross-validation with perfect masks, as a first stage for a cascade."""

import shutil
from pathlib import Path

import yaml

from scripts.data.datalist import datalist_hash, read_datalist
from scripts.data.images import ENDINGS
from scripts.files import write_json, write_text


def write_first_stage(folder: Path, datalist: Path, dataset_dir: Path) -> Path:
    """The labels of a data list as masks, and the records of its folds; gives the folder."""
    content = read_datalist(datalist)
    (folder / "masks").mkdir(parents=True)
    entries = [entry for entry in content["training"] if "fold" in entry]
    for entry in entries:
        ending = next(ending for ending in reversed(ENDINGS) if entry["label"].endswith(ending))
        ending = ".nii.gz" if entry["label"].endswith(".nii.gz") else ending
        shutil.copyfile(dataset_dir / entry["label"], folder / "masks" / f"{entry['case']}{ending}")
    folds = sorted({entry["fold"] for entry in entries})
    for fold in folds:
        others = sorted({entry["patient"] for entry in entries if entry["fold"] != fold})
        write_json(folder / f"fold{fold}" / "environment.json", {"patients": {"training": others}})
        write_text(folder / f"fold{fold}" / "settings.yaml", yaml.safe_dump({"fold": fold}))
    write_json(folder / "crossval.json", {"folds": folds, "sha256": datalist_hash(content), "datalist": str(datalist)})
    return folder
