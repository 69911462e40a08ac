"""Parts where networks are confident against the label are found, ranked and counted over repetitions."""

import numpy as np
import pytest

from bundle.analysis.label_suspects import find_case_suspects, rank_suspects, tabulate_suspects
from bundle.analysis.scored_scans import ScoredFiles
from tests.made import save_nifti

SHAPE = (24, 26, 28)
TWO_MM = np.diag([2.0, 2.0, 2.0, 1.0])


def box(*ranges):
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(*ends) for ends in ranges)] = 1
    return mask


TUMOUR, FORGOTTEN, THIN = (
    box((3, 9), (3, 9), (3, 9)),
    box((14, 18), (14, 19), (16, 20)),
    box((3, 20), (22, 24), (3, 20)),
)


def files(folder, label, mask, probability=None, affine=TWO_MM, regions=None):
    """A case in files; the probability is that of WT."""
    paths = {name: save_nifti(folder / f"{name}.nii.gz", array, affine) for name, array in (("l", label), ("m", mask))}
    soft = None if probability is None else str(save_nifti(folder / "p.nii.gz", probability, affine))
    label_file, mask_file = (str(path) for path in paths.values())
    return ScoredFiles("a", "a", [], label_file, mask_file, soft, regions or {"WT": [1]}, [1], {})


def test_a_confident_part_that_the_label_lacks_is_found(tmp_path):
    mask = TUMOUR + FORGOTTEN
    probability = (0.96 * mask).astype(np.float32)
    (found,) = find_case_suspects([files(tmp_path, TUMOUR, mask, probability)])
    assert (found.kind, found.region, found.agree, found.of) == ("added", "WT", 1, 1)
    assert found.ml == pytest.approx(4 * 5 * 4 * 8 / 1000)
    assert found.confidence == pytest.approx(0.96)
    assert found.box == ((14, 18), (14, 19), (16, 20))
    assert found.slice == (found.centre[2] + 1, 28)


def test_a_part_that_the_network_doubts_is_not_listed(tmp_path):
    mask = TUMOUR + FORGOTTEN
    assert not find_case_suspects([files(tmp_path, TUMOUR, mask, (0.8 * mask).astype(np.float32))])


def test_a_part_that_the_network_surely_lacks_is_found(tmp_path):
    probability = (0.99 * TUMOUR + 0.02 * FORGOTTEN).astype(np.float32)
    (found,) = find_case_suspects([files(tmp_path, TUMOUR + FORGOTTEN, TUMOUR, probability)])
    assert (found.kind, found.confidence) == ("missed", pytest.approx(0.98))


def test_a_thin_rim_is_no_error_of_the_label(tmp_path):
    mask = TUMOUR + THIN
    assert not find_case_suspects([files(tmp_path, TUMOUR, mask, mask.astype(np.float32))])


def test_one_mask_without_probabilities_lists_nothing(tmp_path):
    assert not find_case_suspects([files(tmp_path, TUMOUR, TUMOUR + FORGOTTEN)])


def test_most_repetitions_must_agree_without_probabilities(tmp_path):
    with_part, without = (files(tmp_path / str(k), TUMOUR, mask) for k, mask in enumerate([TUMOUR + FORGOTTEN, TUMOUR]))
    (found,) = find_case_suspects([with_part, with_part, without])
    assert (found.agree, found.of, found.confidence) == (2, 3, pytest.approx(2 / 3))
    assert not find_case_suspects([with_part, without])


def test_slices_are_counted_as_the_file_stores_them(tmp_path):
    upside_down = np.diag([2.0, 2.0, -2.0, 1.0])
    mask = TUMOUR + FORGOTTEN
    (found,) = find_case_suspects([files(tmp_path, TUMOUR, mask, mask.astype(np.float32), upside_down)])
    assert 17 <= found.slice[0] <= 20  # the part is in the file's slices 16 to 19, counted from 0


def test_a_part_of_nested_regions_is_listed_once(tmp_path):
    mask = TUMOUR + FORGOTTEN
    both = np.stack([mask, mask], -1).astype(np.float32)
    case = files(tmp_path, TUMOUR, mask, both, regions={"WT": [1], "TC": [1]})
    assert len(find_case_suspects([case])) == 1


def test_larger_and_surer_parts_rank_first(tmp_path):
    mask = TUMOUR + FORGOTTEN
    large = find_case_suspects([files(tmp_path / "1", 0 * TUMOUR, mask, mask.astype(np.float32))])
    assert [one.ml for one in large] == sorted((one.ml for one in large), reverse=True)
    table = tabulate_suspects(rank_suspects([large[1:], large[:1]]))
    assert list(table["rank"]) == [1, 2]
    assert table["volume_ml"].is_monotonic_decreasing
