"""Tests of `bundle/studies/decisions.py`."""

import numpy as np
import pytest

from bundle.cohort.case_sizes import LEVELS, CaseSize
from bundle.studies.decisions import Cohort, decide_grid, decide_normalization, decide_sampling, describe_folds

MRI = ["T1", "T1c", "T2", "FLAIR"]
REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
VOLUMES = {"WT": [90.0], "TC": [30.0, 1.0], "ET": [20.0]}


def size(number: int = 0, spacing=(1.0, 1.0, 1.0), shape=(140, 171, 137), kept=0.4, components=None) -> CaseSize:
    levels = [np.linspace(-20, 180, len(LEVELS)).tolist()]
    parts = VOLUMES if components is None else components
    return CaseSize(f"c{number}", f"c{number}", spacing, shape, kept, parts, levels)


def cohort_of(*sizes: CaseSize, channels=MRI, unit="mm", folds=None) -> Cohort:
    return Cohort(list(sizes), list(channels), REGIONS, unit, folds or {0: len(sizes)})


def lines_of(lines) -> dict:
    return {line.setting: line.value for line in lines}


def test_scans_that_nearly_agree_are_not_resampled():
    grid = decide_grid(cohort_of(size(0), size(1, (1.05, 1.0, 1.0)), size(2)))
    assert grid.line.value is None
    assert grid.line.reason.startswith("no resampling: 99 % of 3 scans are within 10% of the median, 1 x 1 x 1 mm;")
    assert grid.shape == (140, 171, 137)


def test_nnunet_resamples_scans_that_nearly_agree():
    grid = decide_grid(cohort_of(size(0), size(1, (1.05, 1.0, 1.0)), size(2)), like="nnunet")
    assert grid.line.value == [1.0, 1.0, 1.0]


def test_scans_that_differ_are_resampled_to_their_median():
    grid = decide_grid(cohort_of(size(0), size(1), size(2, (2.0, 2.0, 2.0), (70, 85, 68))))
    assert grid.line.value == [1.0, 1.0, 1.0]
    assert grid.line.reason == "mm; median of 3 scans; the largest distance to a scan's own is 1 mm (c2)"
    assert grid.shape == (140, 170, 136) or grid.shape == (140, 171, 137)


def test_reason_of_two_scanners_names_the_farthest_scan():
    # the median of a cohort with two modes is a spacing that no scan has
    grid = decide_grid(cohort_of(size(0), size(1), size(2, (3.0, 3.0, 3.0)), size(3, (3.0, 3.0, 3.0))))
    assert grid.line.value == [2.0, 2.0, 2.0]
    assert "the largest distance to a scan's own is 1 mm" in grid.line.reason


def test_thick_slices_name_their_axis_and_ratio():
    sizes = [size(n, (0.9, 0.9, z), (200, 200, 28)) for n, z in enumerate((2.0, 5.0, 5.0, 6.0, 6.0))]
    grid = decide_grid(cohort_of(*sizes))
    assert grid.line.value == [0.9, 0.9, 3.2]
    assert "along axis z the tenth percentile: slices are 5.6 times thicker than wide" in grid.line.reason
    assert grid.order[0] == 2


def test_pictures_have_no_spacing():
    assert decide_grid(cohort_of(size(0, (1.0, 1.0), (256, 256)), unit="pixels")).line.value is None


def test_skull_stripped_mri_is_normalized_without_background():
    (line,) = decide_normalization(cohort_of(size(kept=0.45)))
    assert line.value == "zscore_nonzero"
    assert "keeps 45% of its voxels" in line.reason


def test_whole_heads_are_normalized_with_all_voxels():
    assert lines_of(decide_normalization(cohort_of(size(kept=0.9)))) == {"normalize": "zscore"}


def test_channel_named_ct_gets_a_window_in_hu():
    found = lines_of(decide_normalization(cohort_of(size(), channels=["CT"])))
    assert found == {"normalize": "hu_window", "hu_window": [-19, 179]}


def test_ct_next_to_mri_keeps_one_method():
    (line,) = decide_normalization(cohort_of(size(), channels=["CT", "T1"]))
    assert line.value == "zscore_nonzero"
    assert "CT next to other channels: one method for all" in line.reason


def test_channels_named_for_rescaling_are_rescaled():
    found = lines_of(decide_normalization(cohort_of(size(), channels=["rescale_to_0_1"])))
    assert found == {"normalize": "minmax"}


def sampling(cohort: Cohort, patch=(128, 128, 128)) -> dict:
    return lines_of(decide_sampling(cohort, patch, decide_grid(cohort)))


def test_patches_are_centred_on_the_rarer_regions():
    assert sampling(cohort_of(size()))["centre_regions"] == ["TC", "ET"]


def test_regions_of_similar_volume_all_count_as_centres():
    equal = size(components={"WT": [30.0], "TC": [25.0], "ET": [20.0]})
    assert sampling(cohort_of(equal))["centre_regions"] is None


def test_small_patches_are_centred_on_tumour_more_often():
    large, small = (sampling(cohort_of(size()), patch)["tumour_share"] for patch in [(128,) * 3, (32,) * 3])
    assert large == 0.33
    assert large < small <= 2 / 3


def test_mostly_empty_cases_ask_for_labelled_ones():
    empty = {"WT": [], "TC": [], "ET": []}
    found = sampling(cohort_of(size(0), size(1, components=empty), size(2, components=empty)))
    assert found["labelled_case_share"] == 0.5
    assert "labelled_case_share" not in sampling(cohort_of(size()))


def test_component_limit_is_the_smallest_largest_component():
    other = size(1, components={"WT": [50.0], "TC": [0.3, 0.1], "ET": []})
    assert sampling(cohort_of(size(0), other))["component_limits"] == {"WT": 50.0, "TC": 0.3, "ET": 20.0}


@pytest.mark.parametrize(
    ("patients", "folds", "said"),
    [(60, 5, False), (60, 3, "5 suit this number (`prepare --folds 5`)"), (6, 5, "3 suit this number")],
)
def test_number_of_folds_follows_the_number_of_patients(patients, folds, said):
    sizes = [size(number) for number in range(patients)]
    text = describe_folds(cohort_of(*sizes, folds=dict.fromkeys(range(folds), patients // folds)))
    assert (said in text) if said else ("suit this number" not in text)


def test_few_validation_patients_are_warned_of():
    assert "fewer than 10 validation patients" in describe_folds(cohort_of(size(), folds={0: 9, 1: 12}))
    assert "fewer than 10" not in describe_folds(cohort_of(size(), folds={0: 10, 1: 12}))
