"""Training on the masks of several raters, with voxels to ignore, by the real workflow."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import run

from bundle.commands.evaluate import evaluate
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from scripts.errors import input_error_message

FAST = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "max_epochs": 1, "steps_per_epoch": 4, "device": "cpu"}
RATERS = "anna={case}_anna.nii.gz,ben={case}_ben.nii.gz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four cases: anna's masks and larger ones by ben, who ignores the lowest slices; a list of both, one of anna."""
    made = tmp_path_factory.mktemp("raters") / "cases"
    phantom(str(made), cases=4, size=32, spacing=6.0)
    for label in sorted(made.glob("*/*_seg.nii.gz")):
        image = nib.load(label)
        voxels = np.asarray(image.dataobj).astype(np.uint8)
        label.rename(str(label).replace("_seg", "_anna"))
        larger = np.where((np.roll(voxels, 1, 0) > 0) & (voxels == 0), 2, voxels).astype(np.uint8)
        larger[:, :, :4] = 255
        nib.save(nib.Nifti1Image(larger, image.affine), str(label).replace("_seg", "_ben"))
    options = {"task": "brats", "folds": 2, "picture": False, "workers": 1}
    prepare(str(made), out=str(made / "both.json"), raters=RATERS, ignore=255, **options)
    prepare(str(made), out=str(made / "anna.json"), label="{case}_anna.nii.gz", **options)
    return made


def train(folder: Path, datalist: str, out: Path, recipes=(), **settings) -> Path:
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", *(f"configs/recipes/{name}.yaml" for name in recipes)]
    where = {"datalist": str(folder / datalist), "dataset_dir": str(folder), "run_dir": str(out)}
    run("training", config_file=files, **where, **{**FAST, **settings})
    return out


def weights(run_dir: Path) -> torch.Tensor:
    state = torch.load(run_dir / "model.pt", weights_only=True)
    return torch.cat([value.flatten().float() for value in state.values() if torch.is_tensor(value)])


@pytest.mark.usefixtures("at_root")
def test_one_rater_of_several_trains_like_the_only_label(folder, tmp_path):
    sgd = {"recipes": ["sgd_poly"]}  # AdamW makes much of how a loss is rounded
    of_both = train(folder, "both.json", tmp_path / "both", **sgd, raters="anna", ignore=255)
    alone = train(folder, "anna.json", tmp_path / "alone", **sgd)
    assert torch.allclose(weights(of_both), weights(alone), atol=1e-6)


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize("raters", ["draw", "majority", "staple"])
def test_each_way_trains_and_is_scored_by_all_raters(folder, tmp_path, raters, capsys):
    out = train(folder, "both.json", tmp_path / "run", raters=raters, ignore=255)
    history = pd.read_csv(out / "history.csv").iloc[0]
    assert np.isfinite([history["train_loss"], history["val_loss"], history["val_dice_WT"]]).all()
    assert history["train_dice_WT"] < 1
    evaluate(str(out))
    scored = pd.read_csv(out / "evaluation" / "raters.csv")
    compared = scored[["rater", "compared"]].drop_duplicates()
    assert {*compared.itertuples(index=False, name=None)} == {("anna", "model"), ("ben", "model"), ("anna", "ben")}
    assert "WT: Dice" in capsys.readouterr().out


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("datalist", "settings", "sentence"),
    [
        ("both.json", {}, "the data list has 255 to ignore, the config has no value: give --ignore 255"),
        ("anna.json", {"ignore": 9}, "has no value to ignore, the config has 9: give `python -m bundle prepare"),
        ("both.json", {"ignore": 255, "raters": "carla"}, "raters is 'carla': expected draw, majority, staple"),
    ],
)
def test_settings_that_do_not_fit_the_list_are_refused(folder, tmp_path, datalist, settings, sentence):
    with pytest.raises(RuntimeError) as caught:
        train(folder, datalist, tmp_path / "run", **settings)
    assert sentence in input_error_message(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("at_root")
def test_a_loss_of_boundaries_refuses_to_ignore(folder, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        train(folder, "both.json", tmp_path / "run", recipes=["boundary"], ignore=255)
    assert "the loss depends on where voxels lie" in input_error_message(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_lists_hold_every_file_of_every_rater(folder):
    content = json.loads((folder / "both.json").read_text())
    assert sum("_anna" in file or "_ben" in file for file in content["hashes"]) == 8
