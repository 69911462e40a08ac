"""Tests of `scripts/inference/mask_saver.py`."""

import os
import signal
from multiprocessing import get_context

import nibabel as nib
import numpy as np
import pytest

from scripts.data import pictures
from scripts.errors import InputError
from scripts.inference.mask_saver import mask_path
from scripts.inference.scans import unsegmented_cases
from scripts.stopping import catch_signals
from tests.made.masks import MASK, TWO, records_of, save_masks, save_picture_masks, scan, stack_of


def test_existing_masks_are_not_overwritten(tmp_path):
    assert unsegmented_cases(TWO, records_of(tmp_path / "out"), resume=False) == TWO
    (tmp_path / "out").mkdir()
    mask_path(tmp_path / "out", "a", "a.nii").write_text("")
    with pytest.raises(InputError, match=r"already holds masks of 1 of 2 cases: .*--resume"):
        unsegmented_cases(TWO, records_of(tmp_path / "out"), resume=False)


@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (1, 4), (2, 0), (0, 2), (0, 0)])
def test_mask_has_its_scans_position_in_every_reader(tmp_path, qform, sform):
    source = scan(tmp_path / "scan.nii.gz", qform=qform, sform=sform)
    mask = np.random.default_rng(0).integers(0, 5, (5, 6, 7)).astype(np.uint8)
    save_masks(tmp_path / "out", source, mask)
    saved = nib.load(tmp_path / "out" / "a.nii.gz")
    assert saved.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(saved.dataobj), mask)
    assert np.allclose(saved.affine, source.affine, atol=1e-4)
    assert nib.aff2axcodes(saved.affine) == nib.aff2axcodes(source.affine)
    assert (int(saved.header["qform_code"]), int(saved.header["sform_code"])) == (qform, sform)
    assert saved.header.get_xyzt_units() == ("mm", "sec")
    assert np.allclose(saved.header.get_zooms(), source.header.get_zooms())
    if qform:  # ITK reads this one
        assert np.allclose(saved.get_qform(), source.get_qform(), atol=1e-4)


def test_probabilities_are_written_as_one_map_per_region(tmp_path):
    probabilities = np.random.default_rng(0).random((3, 5, 6, 7)).astype(np.float32)
    source = scan(tmp_path / "scan.nii.gz")
    save_masks(tmp_path / "out", source, np.zeros((5, 6, 7), np.uint8), probabilities)
    saved = nib.load(tmp_path / "out" / "probabilities" / "a.nii.gz")
    assert saved.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(saved.dataobj), np.moveaxis(probabilities, 0, -1))
    assert np.allclose(saved.affine, source.affine)


def test_sigterm_ends_after_the_current_mask(tmp_path):
    images = stack_of(tmp_path / "a.tif", 3)

    def segment() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        catch_signals()
        save_picture_masks(tmp_path / "out", images, on_case=lambda case: case == "a_1" and kill_own_process())

    process = get_context("fork").Process(target=segment)
    process.start()
    process.join(60)
    assert process.exitcode == 143
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_0.tif", "a_1.tif"}


def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_unwritable_folder_ends_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"a\.nii\.gz cannot be written"):
        save_masks(tmp_path / "file" / "out", scan(tmp_path / "scan.nii.gz"), np.zeros((5, 6, 7), np.uint8))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (["a_t1.nii", "a_t2.nii"], "x.nii.gz"),
        ("a.nii.gz", "x.nii.gz"),
        (["a.png"], "x.png"),
        ("A.TIF", "x.tif"),
        ("a.tiff#3", "x.tiff"),
        ("a.jpg", "x.png"),
    ],
)
def test_mask_has_the_format_of_its_image_but_never_jpeg(tmp_path, image, name):
    assert mask_path(tmp_path, "x", image) == tmp_path / name


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_mask_of_a_picture_matches_it_pixel_for_pixel(tmp_path, ending):
    save_picture_masks(tmp_path, {"a": f"/scans/a{ending}"})
    assert np.array_equal(pictures.read_picture(tmp_path / f"a{ending}"), MASK)
    assert pictures.read_picture(tmp_path / f"a{ending}").dtype == np.uint8


def test_scored_masks_stay_one_file_per_case(tmp_path):
    images = stack_of(tmp_path / "a.tif", 2)
    save_picture_masks(tmp_path / "out", images, stacks=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_0.tif", "a_1.tif"}
