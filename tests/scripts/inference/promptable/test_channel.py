"""The channel that is asked for is read, from any of the layouts, or a sentence says which ones there are."""

import nibabel as nib
import numpy as np
import pytest

from scripts.errors import InputError
from scripts.inference.promptable.channel import read_channel
from tests.made import save_nifti

VOXELS = np.arange(4 * 5 * 6 * 3, dtype=np.float32).reshape(4, 5, 6, 3)
NAMES = ["T1", "T2", "FLAIR"]
FILES = {name: [f"{{case}}/{{case}}_{name.lower()}.nii*"] for name in NAMES}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "A").mkdir()
    one = [save_nifti(tmp_path / "A" / f"A_{name.lower()}.nii.gz", VOXELS[..., k], np.eye(4)) for k, name in
           enumerate(NAMES)]  # fmt: skip
    return {"all": save_nifti(tmp_path / "all.nii.gz", VOXELS, np.eye(4)), "one": one[1], "each": list(map(str, one)),
            "folder": tmp_path / "A"}  # fmt: skip


@pytest.mark.parametrize("channel", ["T2", "1"])
@pytest.mark.parametrize("source", ["all", "one", "each"])
def test_a_channel_is_read_from_each_layout(files, source, channel):
    assert np.array_equal(read_channel(files[source], channel, NAMES).voxels, VOXELS[..., 1])


def test_a_channel_is_found_in_a_folder_by_its_name(files):
    found = read_channel(files["folder"], "FLAIR", NAMES, FILES)
    assert np.array_equal(found.voxels, VOXELS[..., 2])
    assert found.file.name == "A_flair.nii.gz"


@pytest.mark.parametrize(
    ("source", "channel", "names", "words"),
    [
        ("all", None, None, "holds 3 channels, and no --channel is given: expected a number from 0 to 2"),
        ("all", "T1", None, "--channel is T1: expected a number from 0 to 2; --task names them"),
        ("all", "3", NAMES, "--channel is 3: expected T1, T2, FLAIR, or a number from 0 to 2"),
        ("all", "T1c", NAMES, "--channel is T1c: expected T1, T2, FLAIR"),
        ("each", "T1c", NAMES, "--channel is T1c"),
        ("folder", None, NAMES, "is a folder, and no --channel is given: expected one of T1, T2, FLAIR"),
        ("folder", "T1c", NAMES, "--channel is T1c: expected one of T1, T2, FLAIR"),
    ],
)
def test_a_channel_that_is_not_there_is_refused(files, source, channel, names, words):
    with pytest.raises(InputError, match=words):
        read_channel(files[source], channel, names, FILES)


def test_a_folder_with_other_file_names_is_refused(files, tmp_path):
    (tmp_path / "A" / "A_flair.nii.gz").rename(tmp_path / "A" / "other.nii.gz")
    with pytest.raises(InputError, match="holds 0 files of FLAIR by the names"):
        read_channel(files["folder"], "FLAIR", NAMES, FILES)


def test_voxels_that_are_not_finite_are_refused(tmp_path):
    voxels = np.ones((4, 5, 6), np.float32)
    voxels[1, 1, 1] = np.nan
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "nan.nii.gz")
    with pytest.raises(InputError, match="holds NaN or infinite voxels"):
        read_channel(tmp_path / "nan.nii.gz", None, None)
