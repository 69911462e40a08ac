"""Unusual NIfTI files get the same answer from every reader, and one bad case is one failed row."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Orientation

from bundle.cohort.recognise import recognise_folder
from scripts.data.case_checks import check_case
from scripts.data.case_files import Case, find_cases
from scripts.data.case_record import ExpectedCase
from scripts.data.datalist import file_hash
from scripts.data.images import grid_difference, read_image
from scripts.data.loading import LoadImageChannelsd
from scripts.inference.scans import find_input_scans
from scripts.scoring.cohort import score_predictions
from tests.made import refused, save_nifti
from tests.made.readers import read_by_all, refusal_of_all

LABELS = np.zeros((8, 9, 10), np.uint8)
LABELS[2:6, 3:7, 2:8] = 1
LABELS[3:5, 4:6, 3:6] = 2
ONE_HOT = np.stack([value == LABELS for value in range(3)], axis=-1).astype(np.uint8)
FLAIR = {"FLAIR": ["{case}/{case}_flair.nii*"]}
DEMO = ExpectedCase(["FLAIR"], frozenset({1, 2}), "demo")


def save(path, voxels, affine=None, kind="<"):
    header = nib.Nifti1Header(endianness=kind)
    header.set_data_dtype(voxels.dtype.newbyteorder(kind) if voxels.dtype.fields is None else voxels.dtype)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine, header), path)
    return path


def scans(folder, labels=LABELS):
    """Two labelled scans next to each other, by the patterns of `FLAIR`; the first one's label is not in the second."""
    rng = np.random.default_rng(0)
    for case in ("a", "b"):
        (folder / case).mkdir()
        save(folder / case / f"{case}_flair.nii.gz", (labels > 0) * rng.integers(50, 99, labels.shape).astype(np.int16))
    return folder


def demo_list(folder, cases):
    """A data list of label maps without images, and a folder of predictions."""
    (folder / "predictions").mkdir()
    for case in cases:
        save(folder / f"{case}.nii.gz", LABELS)
        save(folder / "predictions" / f"{case}.nii.gz", LABELS)
    entries = [{"image": "-", "label": f"{c}.nii.gz", "case": c, "patient": c, "split": "test"} for c in cases]
    hashes = {f"{case}.nii.gz": file_hash(folder / f"{case}.nii.gz") for case in cases}
    header = {
        "channels": ["FLAIR"],
        "label_scheme": "demo",
        "labels": {"core": 1, "rim": 2},
        "regions": {"all": [1, 2]},
    }
    return header | {"hashes": hashes, "training": entries}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16, np.float32, np.float64])
def test_big_endian_files_are_read_as_others(tmp_path, dtype):
    for voxels, _ in read_by_all(save(tmp_path / "a.nii", LABELS.astype(dtype), kind=">")).values():
        np.testing.assert_array_equal(voxels > 0, LABELS > 0)
        assert voxels.dtype.isnative


@pytest.mark.parametrize("shape", [(8, 9, 10, 1), (8, 9, 10, 1, 1)])
def test_axes_of_one_voxel_at_the_end_do_not_count(tmp_path, shape):
    for voxels, _ in read_by_all(save(tmp_path / "a.nii.gz", LABELS.reshape(shape))).values():
        np.testing.assert_array_equal(voxels > 0, LABELS > 0)


@pytest.mark.parametrize(
    ("voxels", "sentence"),
    [
        (LABELS * (1 + 2j), "holds complex numbers: expected real ones; export the magnitude"),
        (np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "holds colours (RGB)"),
        (np.stack([ONE_HOT, ONE_HOT], axis=-1), "has 5 axes (8 x 9 x 10 x 3 x 2)"),
        (np.where(LABELS > 0, -1, 0).astype(np.int8), "holds -1 as int8, in which values above 127 wrap"),
    ],
)
def test_files_without_clear_meaning_are_refused_by_all(tmp_path, voxels, sentence):
    assert sentence in refusal_of_all(save(tmp_path / "a.nii", voxels))


def test_int8_that_is_scaled_may_be_negative(tmp_path):
    image = nib.Nifti1Image(np.array([[[-1.5, 0, 2], [1, 1, 1]]], np.float32), np.eye(4))
    image.header.set_data_dtype(np.int8)
    nib.save(image, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").voxels.min() == pytest.approx(-1.5, abs=0.02)


def test_one_map_per_label_is_refused_as_such(tmp_path):
    said = "holds 3 maps (8 x 9 x 10 x 3): a label map has one value per voxel"
    mask, image = save(tmp_path / "mask.nii.gz", ONE_HOT), save(tmp_path / "a.nii.gz", LABELS)
    answers = read_by_all(mask)
    assert said in answers["score"]
    assert said in answers["raters"]
    assert said in check_case(Case("a", [image], mask), DEMO).problems[0]
    load = LoadImageChannelsd(["image", "label"], ["FLAIR"])
    assert said in refused(load, {"image": [str(image)], "label": str(mask)})


def test_a_vector_image_of_itk_has_its_channels(tmp_path):
    stacked = np.stack([LABELS, LABELS + 1], axis=-1)[:, :, :, None]
    path = save(tmp_path / "a.nii.gz", stacked)
    image = LoadImageChannelsd(["image"], ["T1", "FLAIR"])({"image": str(path)})["image"]
    np.testing.assert_array_equal(image.numpy(), np.moveaxis(stacked[:, :, :, 0], -1, 0))


def test_endings_in_capitals_are_found(tmp_path):
    scans(tmp_path)
    for case in ("a", "b"):
        file = tmp_path / case / f"{case}_flair.nii.gz"
        file.rename(file.with_name(f"{case}_flair.NII.GZ"))
    assert [case.case for case in find_cases(tmp_path, FLAIR)] == ["a", "b"]
    assert [case["case"] for case in find_input_scans(tmp_path, ["FLAIR"], FLAIR)] == ["a", "b"]
    assert [case["case"] for case in find_input_scans(tmp_path / "a", ["FLAIR"], {"FLAIR": ["{case}_x.nii*"]})] == [
        "a_flair"
    ]


def described(folder, labels, encoding="utf-8", ending=".nii.gz"):
    """nnU-Net raw with one case."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    save_nifti(folder / "imagesTr" / "a_0000.nii.gz", LABELS, np.eye(4)).rename(folder / f"imagesTr/a_0000{ending}")
    save_nifti(folder / "labelsTr" / "a.nii.gz", LABELS, np.eye(4)).rename(folder / f"labelsTr/a{ending}")
    content = {"channel_names": {"0": "FLAIR"}, "labels": labels, "file_ending": ".nii.gz", "name": "Größe"}
    (folder / "dataset.json").write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    "labels",
    [
        {"background": "0", "core": "1", "rim": "2"},
        {"0": "background", "1": "core", "2": "rim"},
        {"core": 1.0, "rim": 2},
    ],
)
def test_label_values_may_be_text(tmp_path, labels, encoding):
    described(tmp_path, labels, encoding)
    assert recognise_folder(tmp_path, []).task.labels == {"core": 1, "rim": 2}


def test_a_described_folder_may_have_endings_in_capitals(tmp_path):
    described(tmp_path, {"core": 1, "rim": 2}, ending=".NII.GZ")
    (case,) = recognise_folder(tmp_path, []).cases
    assert (case.case, case.problems) == ("a", [])
    assert check_case(case, DEMO).problems == []


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_broken_link_is_a_problem_of_its_case(tmp_path, which):
    files = {"image": save(tmp_path / "a.nii.gz", LABELS * 50), "label": save(tmp_path / "l.nii.gz", LABELS)}
    files[which].unlink()
    files[which].symlink_to(tmp_path / "gone.nii.gz")
    problems = check_case(Case("a", [files["image"]], files["label"]), DEMO).problems
    assert any("a link to a file that does not exist" in problem for problem in problems)


@pytest.mark.parametrize("size", [1.0, 2.0, 6.0])
@pytest.mark.parametrize("same", [True, False])
def test_all_readers_have_one_tolerance_for_the_grid(tmp_path, size, same):
    affine = np.diag([size, size, size, 1])
    affine[:3, 3] = 300  # far from the origin
    moved = affine.copy()
    moved[1, 3] += size * (0.09 if same else 0.11)
    image, mask = save(tmp_path / "a.nii.gz", LABELS * 50, affine), save(tmp_path / "m.nii.gz", LABELS, moved)
    load, both = LoadImageChannelsd(["image", "label"], ["FLAIR"]), {"image": [str(image)], "label": str(mask)}
    found = {
        "prepare": not check_case(Case("a", [image], mask), DEMO).problems,
        "score": not grid_difference(read_image(image), read_image(mask)),
        "training": "another affine" not in refused(load, both) if not same else bool(load(both)),
    }
    assert found == dict.fromkeys(found, same)


def test_rounding_at_45_degrees_is_no_other_orientation(tmp_path):
    def turned(degrees):
        angle = np.deg2rad(degrees)
        rotation = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        return nib.affines.from_matvec(np.array(rotation), np.zeros(3))

    below, above = turned(45 - 2e-4), turned(45 + 2e-4)
    assert nib.aff2axcodes(below) != nib.aff2axcodes(above)
    image, mask = save(tmp_path / "a.nii", LABELS * 50, below), save(tmp_path / "m.nii", LABELS, above)
    assert check_case(Case("a", [image], mask), DEMO).problems == []
    assert grid_difference(read_image(image), read_image(mask)) == ""
    loaded = LoadImageChannelsd(["image", "label"], ["FLAIR"])({"image": [str(image)], "label": str(mask)})
    turn = Orientation("RAS", labels=None)
    assert torch.equal(turn(loaded["image"]) > 0, turn(loaded["label"]) > 0)


def write_odd(path, kind):
    """A prediction that cannot be scored."""
    if kind == "link":
        path.symlink_to(path.with_name("gone.nii.gz"))
    elif kind == "damaged":
        path.write_bytes(b"no NIfTI")
    else:
        voxels = {
            "complex": LABELS * 1j,
            "one-hot": ONE_HOT,
            "colours": np.zeros((2, 2, 2), [(c, "u1") for c in "RGB"]),
        }
        save(path, voxels[kind])


@pytest.mark.parametrize("kind", ["link", "damaged", "complex", "one-hot", "colours"])
def test_one_bad_prediction_is_one_failed_row(tmp_path, kind):
    content = demo_list(tmp_path, ["a", "b"])
    (tmp_path / "predictions" / "a.nii.gz").unlink()
    write_odd(tmp_path / "predictions" / "a.nii.gz", kind)
    rows = score_predictions(
        content, tmp_path, tmp_path / "predictions", tmp_path / "out", resample=True, workers=1
    ).cases
    assert list(rows.loc[rows["metric"] == "failed", "case"]) == ["a"]
    assert rows.loc[(rows["case"] == "b") & (rows["metric"] == "dice"), "value"].tolist() == [1.0]
