"""Matching of prediction files to cases."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.errors import InputError
from scripts.scoring.prediction_files import PROBABILITY_SUFFIXES, find_predictions, images_in, match_predictions


def files(*names) -> list[Path]:
    return [Path("predictions", name) for name in names]


def nifti(path, voxels, affine=None) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(voxels), np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize(
    "name",
    ["X.nii.gz", "X.nii", "X_pred.nii.gz", "X-seg.nii.gz", "X_SEG.nii.gz", "X.mask.nii", "X_mask.png", "X_labels.tif"],
)
def test_the_names_that_systems_give_are_understood(name):
    assert match_predictions(files(name, "Y.nii.gz"), ["X"]) == {"X": Path("predictions", name)}


def test_file_in_a_folder_named_like_the_case_is_found():
    found = match_predictions(files("X/prediction.nii.gz", "Y/Y_seg.nii.gz", "Z/Z_flair_seg.nii.gz"), ["X", "Y", "Z"])
    assert sorted(found) == ["X", "Y", "Z"]


def test_other_time_point_of_the_patient_is_not_the_case():
    assert match_predictions(files("P1_2.nii.gz", "P10.nii.gz", "P1.nii.gz"), ["P1"]) == {
        "P1": Path("predictions/P1.nii.gz")
    }
    with pytest.raises(InputError, match="no file is named after a case"):
        match_predictions(files("P1_2.nii.gz", "P10.nii.gz"), ["P1"])


def test_case_whose_name_ends_like_a_suffix_is_found():
    assert match_predictions(files("X_mask.nii.gz"), ["X_mask"]) == {"X_mask": Path("predictions/X_mask.nii.gz")}


def test_two_files_for_a_case_are_refused_by_name():
    with pytest.raises(InputError, match=r"case X has more than one file: .*X\.nii\.gz and .*X_seg\.nii\.gz"):
        match_predictions(files("X.nii.gz", "X_seg.nii.gz"), ["X"])


def test_where_no_name_fits_the_nearest_names_are_shown():
    with pytest.raises(InputError, match=r"expected BraTS-GLI-00001\.nii\.gz.*found BraTS-GLI-1\.nii\.gz"):
        match_predictions(files("BraTS-GLI-1.nii.gz", "readme.png"), ["BraTS-GLI-00001"])


def test_probabilities_next_to_label_maps_are_not_label_maps():
    both = files("X.nii.gz", "X_prob.nii.gz")
    assert match_predictions(both, ["X"]) == {"X": both[0]}
    assert match_predictions(both[1:], ["X"], PROBABILITY_SUFFIXES) == {"X": both[1]}


@pytest.mark.parametrize(("make", "said"), [(False, "is not a folder"), (True, "holds no image")])
def test_missing_and_empty_folders_have_different_messages(tmp_path, make, said):
    folder = tmp_path / "predictions"
    if make:
        folder.mkdir()
        (folder / "notes.txt").write_text("nothing")
        (folder / "._X.nii.gz").write_text("macOS leaves these")
    with pytest.raises(InputError, match=said):
        images_in(folder)


def test_probabilities_in_their_own_folder_are_not_label_maps(tmp_path):
    (tmp_path / "probabilities").mkdir()
    mask = nifti(tmp_path / "X.nii.gz", np.ones((4, 3, 2), np.uint8))
    soft = nifti(tmp_path / "probabilities" / "X.nii.gz", np.ones((4, 3, 2), np.float32))
    assert images_in(tmp_path) == [mask]
    assert images_in(tmp_path / "probabilities") == [soft]


def entry(case, patient, label) -> dict:
    return {"case": case, "patient": patient, "label": label}


def test_stack_named_after_the_volume_holds_predictions_of_its_pages():
    listed = [entry("train_0", "train", "train-labels.tif#0"), entry("train_1", "train", "train-labels.tif#1")]
    assert find_predictions(files("train.tif"), listed) == {f"train_{k}": f"predictions/train.tif#{k}" for k in (0, 1)}
    blocks = [{**one, "patient": f"train block {k}", "volume": "train"} for k, one in enumerate(listed)]
    assert find_predictions(files("train.tif"), blocks) == find_predictions(files("train.tif"), listed)
    both = find_predictions(files("train.tif", "train_1_pred.png"), listed)
    assert both == {"train_0": "predictions/train.tif#0", "train_1": "predictions/train_1_pred.png"}


def test_patient_with_separate_label_files_is_not_a_stack():
    listed = [entry("P_0", "P", "P_0_mask.png"), entry("P_1", "P", "P_1_mask.png")]
    assert find_predictions(files("P.tif", "P_1.png"), listed) == {"P_1": "predictions/P_1.png"}


def test_masks_named_like_a_slices_image_belong_to_it():
    entries = [
        {"case": f"train_{k}", "patient": "p", "slice": k, "image": [f"image/{k}.png"], "label": f"label/{k}.png"}
        for k in (1, 2)
    ]
    given = files("1.png", "train_2.png")
    assert find_predictions(given, entries) == {"train_1": str(given[0]), "train_2": str(given[1])}
