"""Errors are located in the brain, whatever the orientation of the file, and counted by patient and by size."""

import nibabel as nib
import numpy as np
import pytest

from bundle.analysis.case_errors import CELLS, cell_shares, measure_case_errors
from bundle.analysis.error_atlas import pool_errors
from bundle.analysis.scored_scans import ScoredFiles
from tests.made import save_nifti

SHAPE = (36, 44, 40)
RAS, LPS = np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])
BRAIN = np.s_[3:33, 4:40, 2:38]  # thirds of 10, 12 and 12 mm


def box(*ranges):
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(*ends) for ends in ranges)] = 1
    return mask


def case_errors(folder, name, truth, prediction, affine=RAS, patient=""):
    """The errors of a case whose masks are given in RAS and stored in the orientation of the affine."""
    scan = np.zeros(SHAPE, np.float32)
    scan[BRAIN] = 100 + np.arange(30)[:, None, None]
    turn = np.s_[::-1, ::-1] if affine is LPS else np.s_[:]
    for kind, array in (("image", scan), ("label", truth), ("mask", prediction)):
        save_nifti(folder / name / f"{kind}.nii.gz", array[turn], affine)
    paths = [str(folder / name / f"{kind}.nii.gz") for kind in ("image", "label", "mask")]
    files = ScoredFiles(name, patient or name, [paths[0]], *paths[1:], None, {"WT": [1]}, [1], {})
    return measure_case_errors(files)


LEFT_FRONT_HIGH = box((4, 12), (30, 38), (28, 36))  # 8 x 8 x 8 mm in the outer thirds
RIGHT_BACK_LOW = box((25, 31), (6, 12), (4, 10))
NOTHING = box((0, 0))


@pytest.mark.parametrize("affine", [RAS, LPS], ids=["RAS", "LPS"])
def test_a_missed_part_is_found_at_its_place(tmp_path, affine):
    atlas = pool_errors([case_errors(tmp_path, "a", LEFT_FRONT_HIGH, NOTHING, affine)])
    missed = atlas.describe()["regions"]["WT"]["missed"]
    assert [place["place"] for place in missed["places"]] == [[0, 2, 2]]
    assert missed["ml"] == pytest.approx(0.512)
    assert atlas.size.tolist() == [30, 36, 36]


def test_false_positives_are_apart_from_misses(tmp_path):
    about = pool_errors([case_errors(tmp_path, "a", LEFT_FRONT_HIGH, RIGHT_BACK_LOW)]).describe()["regions"]["WT"]
    assert about["missed"]["places"][0]["place"] == [0, 2, 2]
    assert about["added"]["places"][0]["place"] == [2, 0, 0]
    assert about["added"]["places"][0]["with_region"] == 0


def test_the_place_where_most_patients_err_is_first(tmp_path):
    masks = [("a", LEFT_FRONT_HIGH), ("b", LEFT_FRONT_HIGH), ("c", RIGHT_BACK_LOW)]
    atlas = pool_errors([case_errors(tmp_path, name, truth, NOTHING) for name, truth in masks])
    first, second = atlas.describe()["regions"]["WT"]["missed"]["places"]
    assert (first["place"], first["patients"], first["with_region"]) == ([0, 2, 2], ["a", "b"], 2)
    assert second["patients"] == ["c"]
    assert atlas.maps[0].share.max() == pytest.approx(2 / 3)


def test_cases_of_one_patient_count_once(tmp_path):
    cases = [case_errors(tmp_path, name, LEFT_FRONT_HIGH, NOTHING, patient="p") for name in "ab"]
    atlas = pool_errors([*cases, case_errors(tmp_path, "c", RIGHT_BACK_LOW, NOTHING)])
    assert (atlas.cases, atlas.patients) == (3, 2)
    first = atlas.describe()["regions"]["WT"]["missed"]["places"][0]
    assert (first["patients"], first["ml"]) == (["p"], pytest.approx(0.512))


def test_errors_are_counted_by_the_size_of_parts(tmp_path):
    truth = LEFT_FRONT_HIGH + box((20, 22), (20, 22), (20, 22))
    atlas = pool_errors([case_errors(tmp_path, "a", truth, LEFT_FRONT_HIGH + RIGHT_BACK_LOW)])
    small, middle, *_ = atlas.describe()["regions"]["WT"]["parts"]
    assert (small["label"], small["not_found"], small["missed_ml"]) == (1, 1, pytest.approx(0.008))
    assert (middle["label"], middle["not_found"]) == (1, 0)
    assert (middle["predicted"], middle["false"], middle["added_ml"]) == (2, 1, pytest.approx(0.216))


def test_cells_of_any_box_hold_the_share_of_the_mask():
    for shape in ((90, 36, 19), (5, 7, 40)):
        mask = np.zeros(shape, bool)
        mask[: shape[0] // 2] = True
        shares = cell_shares(mask)
        assert shares.shape == (CELLS, CELLS, CELLS)
        assert shares[0].min() == 1
        assert shares[-1].max() == 0


def test_a_picture_has_no_place_in_the_brain(tmp_path):
    flat = np.zeros((36, 44, 1), np.uint8)
    for kind in ("image", "label", "mask"):
        nib.save(nib.Nifti1Image(flat, RAS), tmp_path / f"{kind}.nii")
    paths = [str(tmp_path / f"{kind}.nii") for kind in ("image", "label", "mask")]
    assert measure_case_errors(ScoredFiles("a", "a", paths[0], *paths[1:], None, {"WT": [1]}, [1], {})) is None
