"""Files of real scanners, which pydicom ships: what is not a study of the brain is refused in one sentence."""

from __future__ import annotations

import shutil

import pytest
from pydicom.data import get_testdata_file

from bundle.dicom.channels import choose_channels
from bundle.dicom.stacks import read_studies
from scripts.errors import InputError


@pytest.fixture
def folder_of(tmp_path):
    """A folder with one of pydicom's files, of those that are in its wheel."""

    def copy(name: str):
        shutil.copy(get_testdata_file(name, download=False), tmp_path)
        return tmp_path

    return copy


@pytest.mark.parametrize("name", ["CT_small.dcm", "rtplan.dcm", "waveform_ecg.dcm", "JPEG2000.dcm", "liver_1frame.dcm"])
def test_files_that_are_no_mr_image_are_refused(folder_of, name):
    with pytest.raises(InputError, match="holds no MR image in DICOM: give the folder of a patient"):
        read_studies(folder_of(name))


def test_a_single_slice_is_not_a_channel(folder_of):
    (study,) = read_studies(folder_of("MR_small.dcm"))
    with pytest.raises(InputError, match=r"no series is recognised as T1: series 1 \(1 slices, excluded: 1 slices"):
        choose_channels(study.stacks, ["T1"], {})
