import json

import nibabel as nib
import numpy as np
import pytest

from bundle.cohort.phantom_layouts import write_phantoms
from scripts.errors import InputError

SMALL = {"size": 32, "spacing": 6.0}


def voxels(root) -> dict[str, np.ndarray]:
    return {p.relative_to(root).as_posix(): np.asarray(nib.load(p).dataobj) for p in sorted(root.rglob("*.nii.gz"))}


def test_brats2021_layout_has_the_names_types_labels_and_orientation(tmp_path):
    write_phantoms(tmp_path / "p", cases=2, **SMALL)
    case = "BraTS2021_00001"
    assert sorted(p.name for p in (tmp_path / "p" / case).iterdir()) == sorted(
        f"{case}_{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair", "seg")
    )
    image = nib.load(tmp_path / "p" / case / f"{case}_t1ce.nii.gz")
    label = nib.load(tmp_path / "p" / case / f"{case}_seg.nii.gz")
    assert image.shape == label.shape == (32, 32, 32)
    assert image.get_data_dtype() == np.int16
    assert label.get_data_dtype() == np.uint8
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.allclose(image.affine, label.affine)
    assert np.allclose(image.header.get_zooms(), 6.0)
    assert set(np.unique(label.dataobj)) <= {0, 1, 2, 4}


def test_brats_ped_layout_tells_cysts_from_solid_cores(tmp_path):
    write_phantoms(tmp_path / "p", cases=4, layout="brats_ped", **SMALL)
    labels = [array for name, array in voxels(tmp_path / "p").items() if name.endswith("-seg.nii.gz")]
    held = [{*np.unique(label).tolist()} for label in labels]
    assert held[0] == {0, 1, 3, 4}
    assert held[3] == {0, 2, 4}  # the patient whose tumour does not enhance


def test_brats2023_layout_has_a_follow_up_with_a_grown_tumour(tmp_path):
    write_phantoms(tmp_path / "p", cases=4, layout="brats2023", **SMALL)
    first, again = "BraTS-GLI-00001-000", "BraTS-GLI-00001-001"
    found = voxels(tmp_path / "p")
    assert sorted({name.split("/")[0] for name in found}) == [
        "BraTS-GLI-00000-000", first, again, "BraTS-GLI-00002-000",
    ]  # fmt: skip
    assert f"{first}/{first}-t2f.nii.gz" in found
    before, after = found[f"{first}/{first}-seg.nii.gz"], found[f"{again}/{again}-seg.nii.gz"]
    assert set(np.unique(after)) <= {0, 1, 2, 3}
    assert (after > 0).sum() > 1.3 * (before > 0).sum()
    scans = [found[f"{case}/{case}-t1n.nii.gz"] for case in (first, again)]
    assert np.array_equal(scans[0] > 0, scans[1] > 0)  # the head
    assert not np.array_equal(scans[0], scans[1])  # the day


def test_msd_layout_has_4d_files_and_the_decathlon_dataset_json(tmp_path):
    write_phantoms(tmp_path / "msd", cases=1, layout="msd", unlabelled=1, **SMALL)
    write_phantoms(tmp_path / "brats", cases=1, unlabelled=1, **SMALL)
    found, reference = voxels(tmp_path / "msd"), voxels(tmp_path / "brats")
    assert set(found) == {"imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "imagesTs/BRATS_002.nii.gz"}
    image = found["imagesTr/BRATS_001.nii.gz"]
    for k, name in enumerate(("flair", "t1", "t1ce", "t2")):
        assert np.array_equal(image[..., k], reference[f"BraTS2021_00000/BraTS2021_00000_{name}.nii.gz"])
    brats = reference["BraTS2021_00000/BraTS2021_00000_seg.nii.gz"]
    assert np.array_equal(found["labelsTr/BRATS_001.nii.gz"], np.array([0, 2, 1, 0, 3])[brats])
    described = json.loads((tmp_path / "msd" / "dataset.json").read_text())
    assert described["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert described["labels"]["3"] == "enhancing tumour"
    assert described["training"] == [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}]
    assert described["test"] == ["./imagesTs/BRATS_002.nii.gz"]
    assert (described["numTraining"], described["numTest"]) == (1, 1)


def test_nnunet_layout_has_numbered_channels_and_version_2_dataset_json(tmp_path):
    write_phantoms(tmp_path / "p", cases=1, layout="nnunet", unlabelled=1, **SMALL)
    found = voxels(tmp_path / "p")
    channels = [f"imagesTr/BRATS_001_000{k}.nii.gz" for k in range(4)]
    assert set(found) == {
        *channels, "labelsTr/BRATS_001.nii.gz", *(c.replace("Tr/BRATS_001", "Ts/BRATS_002") for c in channels)
    }  # fmt: skip
    described = json.loads((tmp_path / "p" / "dataset.json").read_text())
    assert described == {
        "channel_names": {"0": "T1", "1": "T1c", "2": "T2", "3": "FLAIR"},
        "labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }


def test_an_unlabelled_brats_case_has_images_and_no_label(tmp_path):
    write_phantoms(tmp_path / "p", cases=1, unlabelled=1, **SMALL)
    names = [p.name for p in (tmp_path / "p" / "BraTS2021_00001").iterdir()]
    assert len(names) == 4
    assert not any("seg" in name for name in names)


@pytest.mark.parametrize("layout", ["brats2021", "msd"])
def test_two_dimensions_give_the_slice_with_most_tumour(tmp_path, layout):
    write_phantoms(tmp_path / "flat", cases=1, dims=2, layout=layout, **SMALL)
    write_phantoms(tmp_path / "full", cases=1, layout=layout, **SMALL)
    flat, full = voxels(tmp_path / "flat"), voxels(tmp_path / "full")
    label = next(name for name in full if "seg" in name or "labels" in name)
    k = (full[label] > 0).sum((0, 1)).argmax()
    for name in full:
        assert np.array_equal(flat[name], full[name][:, :, k])


def test_same_seed_repeats_the_voxels_and_other_seeds_differ(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_phantoms(tmp_path / name, cases=1, seed=seed, **SMALL)
    write_phantoms(tmp_path / "longer", cases=5, seed=5, **SMALL)
    a, b, c, longer = (voxels(tmp_path / name) for name in ("a", "b", "c", "longer"))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert all(np.array_equal(a[name], longer[name]) for name in a)
    assert not any(np.array_equal(a[name], c[name]) for name in a)
    assert not any(np.array_equal(a[name], longer[name.replace("00000", "00004")]) for name in a)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"layout": "brats1999"}, "brats2021, brats2023, brats_ped, msd, nnunet"),
        ({"cases": 0}, "--cases is 0"),
        ({"cases": "eight"}, "--cases is eight"),
        ({"dims": 4}, "--dims is 4"),
        ({"size": 2}, "--size is 2"),
        ({"spacing": -1}, "--spacing is -1"),
        ({"unlabelled": -1}, "--unlabelled is -1"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(tmp_path, wrong, said):
    with pytest.raises(InputError, match=said):
        write_phantoms(tmp_path / "p", **wrong)
    assert not list(tmp_path.iterdir())


def test_folder_with_files_is_left_unchanged(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write_phantoms(tmp_path, cases=1, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_existing_file_at_the_folders_path_is_left_unchanged(tmp_path):
    (tmp_path / "p").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        write_phantoms(tmp_path / "p", cases=1, **SMALL)
    assert (tmp_path / "p").read_text() == "mine"


def test_folder_that_cannot_be_created_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_phantoms(tmp_path / "file" / "p", cases=1, **SMALL)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "p").mkdir()
    write_phantoms(tmp_path / "p", cases=1, **SMALL)
    assert (tmp_path / "p" / "BraTS2021_00000").is_dir()


def test_a_stopped_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "p", cases=1, **SMALL)
    assert not list(tmp_path.iterdir())


def test_noise_is_graded_over_patients_and_changes_nothing_else(tmp_path):
    write_phantoms(tmp_path / "plain", cases=3, **SMALL)
    write_phantoms(tmp_path / "noisy", cases=3, noise=10.0, **SMALL)
    plain, noisy = voxels(tmp_path / "plain"), voxels(tmp_path / "noisy")
    changes = []
    for k in range(3):
        case = f"BraTS2021_{k:05d}"
        assert np.array_equal(plain[f"{case}/{case}_seg.nii.gz"], noisy[f"{case}/{case}_seg.nii.gz"])
        one, other = (own[f"{case}/{case}_t1.nii.gz"].astype(float) for own in (plain, noisy))
        changes.append(np.abs(one - other).mean() / one.mean())
    assert changes[0] == 0 < changes[2] < changes[1]  # factors of 1, 4.1 and 1.7


@pytest.mark.parametrize("noise", [0.5, 31, "much"])
def test_noise_out_of_range_is_refused(tmp_path, noise):
    with pytest.raises(InputError, match=f"--noise is {noise}: give the largest factor on the noise, 1 to 30"):
        write_phantoms(tmp_path / "p", cases=1, noise=noise, **SMALL)
