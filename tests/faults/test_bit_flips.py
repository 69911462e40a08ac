"""A flipped bit in a compressed scan or mask is refused by every reader, or changes no voxel."""

import gzip

import numpy as np
import pytest

from scripts.data.nifti import read_nifti
from scripts.errors import InputError
from tests.made import save_nifti
from tests.made.readers import READERS, answer_of

TRIALS = 200
CUBE = np.random.default_rng(0).integers(0, 2, (16, 16, 16)).astype(np.uint8)
CUBE[0] = CUBE[-1] = 0  # background


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("reader", READERS)
def test_no_flipped_bit_changes_a_voxel_unnoticed(tmp_path, reader):
    content = save_nifti(tmp_path / "a.nii.gz", CUBE, np.diag([1.0, 1.0, 2.0, 1.0])).read_bytes()
    bits = np.random.default_rng(1).choice(len(content) * 8, TRIALS, replace=False)
    refused = 0
    for bit in bits:
        (tmp_path / "b.nii.gz").write_bytes(flipped(content, int(bit)))
        answer = answer_of(READERS[reader], tmp_path / "b.nii.gz")
        refused += isinstance(answer, str)
        if not isinstance(answer, str):
            np.testing.assert_array_equal(answer[0], CUBE)
            np.testing.assert_array_equal(answer[1], np.diag([1.0, 1.0, 2.0, 1.0]))
    assert refused > 0.9 * TRIALS  # the others hit gzip's own header: a date, a name


def test_every_flipped_bit_of_the_nifti_header_is_refused(tmp_path):
    raw = gzip.decompress(save_nifti(tmp_path / "a.nii.gz", CUBE, np.eye(4)).read_bytes())
    stored = gzip.compress(raw, compresslevel=0)  # so that the header's bytes lie in the file as they are
    start = stored.index(raw[:348])
    for bit in range(start * 8, (start + 348) * 8):
        (tmp_path / "b.nii.gz").write_bytes(flipped(stored, bit))
        with pytest.raises(InputError, match="it may be damaged; copy it again"):
            read_nifti(tmp_path / "b.nii.gz")


def test_a_file_cut_short_by_one_byte_is_refused(tmp_path):
    content = save_nifti(tmp_path / "a.nii.gz", CUBE, np.eye(4)).read_bytes()
    for reader in READERS.values():
        (tmp_path / "b.nii.gz").write_bytes(content[:-1])
        assert "copy it again" in str(answer_of(reader, tmp_path / "b.nii.gz"))
