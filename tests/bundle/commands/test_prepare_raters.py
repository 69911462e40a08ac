"""Data lists of cases that several raters have drawn, and of labels with voxels to ignore."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from scripts.data import datalist
from scripts.errors import InputError
from tests.made import ROOT

RATERS = "anna={case}_anna.nii.gz,ben={case}_ben.nii.gz"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Four cases by two raters, the first one by anna alone; ben ignores the lowest slices."""
    folder = tmp_path_factory.mktemp("raters") / "cases"
    phantom(str(folder), cases=4, size=32, spacing=6.0)
    for number, label in enumerate(sorted(folder.glob("*/*_seg.nii.gz"))):
        image = nib.load(label)
        voxels = np.asarray(image.dataobj).astype(np.uint8)
        label.rename(str(label).replace("_seg", "_anna"))
        voxels[:, :, :2] = 255
        if number:
            nib.save(nib.Nifti1Image(voxels, image.affine), str(label).replace("_seg", "_ben"))
    return folder


@pytest.fixture
def mine(drawn, tmp_path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "mine"))


def prepared(folder: Path, **options) -> dict:
    out = folder / "list.json"
    given = {"task": "brats", "raters": RATERS, "ignore": 255, "folds": 2, "picture": False, "workers": 1}
    prepare(str(folder), out=str(out), **{**given, **options})
    return datalist.read_datalist(out)


def file_of(folder: Path, rater: str, case: int = 0) -> Path:
    return sorted(folder.glob(f"*/*_{rater}.nii.gz"))[case]


def rewrite(path: Path, change) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)).astype(np.uint8), image.affine), path)


def test_each_case_lists_its_raters_and_what_is_ignored(mine, capsys):
    made = prepared(mine)
    assert [[*entry["labels"]] for entry in made["training"]] == [["anna"], *[["anna", "ben"]] * 3]
    assert not any("label" in entry for entry in made["training"])
    assert made["ignore"] == 255
    assert {*made["hashes"]} >= {file for entry in made["training"] for file in entry["labels"].values()}
    said = capsys.readouterr().out
    assert "raters: anna, ben" in said
    assert "ignored: voxels with the label 255" in said


def test_missing_raters_are_counted_in_the_notes(mine):
    notes = prepared(mine)["notes"]
    assert "ben has not drawn 1 of 4 cases: BraTS2021_00000." in notes
    assert "only one rater has drawn 1 case: BraTS2021_00000." in notes


BROKEN = {
    "another grid": (
        lambda f: rewrite(file_of(f, "ben"), lambda a: a[:, :, 1:]),
        {},
        r"_ben\.nii\.gz has shape 32 x 32 x 31, not the 32 x 32 x 32",
    ),
    "all ignored": (
        lambda f: rewrite(file_of(f, "ben"), lambda a: np.full_like(a, 255)),
        {},
        r"_ben\.nii\.gz ignores every voxel \(all are 255\)",
    ),
    "not declared": (
        lambda f: None,
        {"ignore": None},
        r"_ben\.nii\.gz holds the value 255 .*; --ignore 255 if it marks",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_rater_is_checked_like_a_label(mine, capsys, name):
    damage, options, sentence = BROKEN[name]
    damage(mine)
    with pytest.raises(InputError, match="of 4 cases are bad"):
        prepared(mine, **options)
    said = capsys.readouterr().err
    assert re.search(sentence, said)
    assert not (mine / "list.json").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"label": "{case}_anna.nii.gz"}, "--label is the pattern of one label per case, --raters those of several"),
        ({"raters": "anna={case}_anna.nii.gz,carla={case}_c.nii.gz"}, "fits the pattern of rater carla"),
        ({"raters": "{case}_anna.nii.gz"}, "--raters is .* expected NAME=VALUE"),
        ({"raters": "model={case}_anna.nii.gz"}, "--raters has a rater called"),
        ({"ignore": 4}, "ignore is 4, which is also the value of ET"),
    ],
)
def test_wrong_options_end_in_one_sentence(drawn, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        prepared(drawn, **options)
    assert not list(drawn.glob("*.json"))


def test_a_task_names_raters_who_need_a_file(mine, tmp_path):
    task = tmp_path / "mine.yaml"
    brats = (ROOT / "configs" / "tasks" / "brats.yaml").read_text()
    task.write_text(brats + '\nrater_files: {anna: ["{case}_anna.nii.gz"], ben: ["{case}_ben.nii.gz"]}\nignore: 255\n')
    options = {"task": str(task), "raters": None, "ignore": None}
    for file in mine.glob("*/*_ben.nii.gz"):
        file.unlink()
    with pytest.raises(InputError, match=r"fits the pattern of rater ben, \{case\}_ben"):
        prepared(mine, **options)
    for file in mine.glob("*/*_anna.nii.gz"):
        file.unlink()
    assert len(prepared(mine, **options)["testing"]) == 4


def test_a_list_with_label_and_labels_is_refused(mine):
    content = prepared(mine)
    content["training"][1]["label"] = content["training"][1]["labels"]["ben"]
    (mine / "list.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"BraTS2021_00001 has both `label` and `labels`: .* remove one of the two"):
        datalist.read_datalist(mine / "list.json")


def test_a_missing_file_of_a_rater_is_named(mine):
    content = prepared(mine)
    file_of(mine, "ben").unlink()
    with pytest.raises(InputError, match=r"_ben\.nii\.gz is in the data list but not on disk"):
        datalist.check_datalist(content, mine)
