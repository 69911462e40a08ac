"""A DICOM SEG holds the mask voxel by voxel, as other programs read it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest

from bundle.dicom.segmentation import choose_code, write_dicom_seg
from bundle.dicom.stacks import read_studies
from bundle.dicom.volumes import read_stack
from scripts.data.images import read_image
from tests.bundle.dicom.test_stacks import AFFINES, VOXELS
from tests.made import refused
from tests.made.dicom import write_series

LABELS = {"NCR": 1, "ED": 2, "ET": 4}
NETWORK = {"name": "made", "version": "0.1.0"}


def find_program(name: str) -> str:
    """A program, on the path or next to this Python."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed: pip install -r requirements-dev.txt")
    return found


@pytest.fixture(params=[*AFFINES, "reversed", "multi-frame"])
def source(request, tmp_path):
    """A stack of each kind."""
    folder = tmp_path / "series"
    order = list(range(12))[::-1] if request.param == "reversed" else None
    paths = write_series(folder, VOXELS, AFFINES.get(request.param, AFFINES["oblique"]), order=order)
    if request.param == "multi-frame":
        datasets = [pydicom.dcmread(path) for path in paths]
        shutil.rmtree(folder)
        folder.mkdir()
        uids = (pydicom.uid.generate_uid(), pydicom.uid.generate_uid())
        highdicom.legacy.LegacyConvertedEnhancedMRImage(datasets, uids[0], 2, uids[1], 1).save_as(folder / "frames.dcm")
    return read_studies(folder)[0].stacks[0]


@pytest.fixture
def mask(source) -> np.ndarray:
    mask = np.zeros(read_stack(source)[0].shape, np.uint8)
    mask[4:12, 5:15, 2:8], mask[6:10, 7:12, 3:6], mask[7:9, 8:10, 4:5] = 2, 4, 1
    mask[15, 3, 9] = 4  # of no symmetry
    return mask


@pytest.fixture
def written(source, mask, tmp_path) -> Path:
    path = tmp_path / "mask.seg.dcm"
    write_dicom_seg(path, mask, read_stack(source)[1], LABELS, source, NETWORK)
    return path


def test_highdicom_reads_the_mask_on_the_grid_of_the_series(written, source, mask):
    seg = highdicom.seg.segread(written)
    volume = seg.get_volume(combine_segments=True, relabel=False)
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    found = np.zeros_like(mask)
    places = np.argwhere(volume.array)
    voxels = nib.affines.apply_affine(np.linalg.inv(read_stack(source)[1]) @ affine, places)
    np.testing.assert_allclose(voxels, np.rint(voxels), atol=1e-2)
    for (i, j, k), place in zip(np.rint(voxels).astype(int), places, strict=True):
        found[i, j, k] = list(LABELS.values())[volume.array[tuple(place)] - 1]
    np.testing.assert_array_equal(found, mask)


def test_it_names_its_segments_and_refers_to_the_series(written, source):
    seg = pydicom.dcmread(written)
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["NCR", "ED", "ET"]
    assert [s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for s in seg.SegmentSequence] == [
        "Necrosis", "Edema", "Enhancing Lesion",
    ]  # fmt: skip
    assert seg.SegmentationType == "BINARY"
    assert seg.PatientID == source.header.PatientID
    assert seg.FrameOfReferenceUID == source.header.FrameOfReferenceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.header.SeriesInstanceUID


def test_dciodvfy_finds_no_error(written):
    done = subprocess.run([find_program("dciodvfy"), written], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if line.startswith("Error")] == []
    assert any(line.startswith("Segmentation") for line in said)


def test_dcmqi_reads_the_same_voxels(written, source, mask, tmp_path):
    program = find_program("segimage2itkimage")
    command = [program, "--inputDICOM", written, "--outputDirectory", tmp_path, "-t", "nii", "-p", "read"]
    subprocess.run(command, check=True, capture_output=True)
    affine = read_stack(source)[1]
    for number, value in enumerate(LABELS.values(), start=1):
        image = read_image(tmp_path / f"read-{number}.nii.gz")
        assert image.affine is not None
        places = nib.affines.apply_affine(np.linalg.inv(affine) @ image.affine, np.argwhere(image.voxels > 0))
        expected = np.argwhere(mask == value)
        assert {tuple(place) for place in np.rint(places).astype(int)} == {tuple(place) for place in expected}


def test_an_empty_mask_is_not_written(source, tmp_path):
    empty = np.zeros(read_stack(source)[0].shape, np.uint8)
    path = tmp_path / "mask.seg.dcm"
    assert "the mask is empty" in refused(write_dicom_seg, path, empty, np.eye(4), LABELS, source, NETWORK)
    assert not path.exists()


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ("NCR", "Necrosis"),
        ("oedema", "Edema"),
        ("SNFH", "Edema"),
        ("ET", "Enhancing Lesion"),
        ("NET", "Non-Enhancing Lesion"),
        ("NETC", "Neoplasm"),
        ("lesion", "Neoplasm"),
    ],
)
def test_labels_have_standard_codes(label, meaning):
    assert choose_code(label)[2] == meaning
