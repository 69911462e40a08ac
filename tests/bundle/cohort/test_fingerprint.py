import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.cohort.fingerprint import class_frequencies, make_fingerprint, normalize_case


def scan(image, spacing=(1.0, 2.0, 3.0)) -> MetaTensor:
    tensor = torch.as_tensor(image, dtype=torch.float32)
    return MetaTensor(tensor, affine=np.diag([*spacing[: tensor.dim() - 1], 1.0]))


def test_record_counts_foreground_and_each_label():
    image = torch.zeros(2, 4, 4, 4)
    image[0, :2] = torch.arange(1, 33).reshape(2, 4, 4)
    image[1, 2, 0, 0] = 7  # seen by the second channel alone
    label = torch.zeros(1, 4, 4, 4)
    label[0, 0] = 1
    label[0, 3, 3, 3] = 4  # where all channels are 0
    made = make_fingerprint("a", scan(image), label)
    assert made.shape == (4, 4, 4)
    assert made.spacing == (1, 2, 3)
    assert made.counts == {0: 47, 1: 16, 4: 1}
    assert made.voxels == 32 + 1 + 1
    assert made.percentiles[0].tolist() == pytest.approx(np.percentile(np.arange(1, 33), [1, 25, 50, 75, 99]))
    assert made.commonest.tolist() == [[1, 1 / 32], [7, 1]]
    assert made.has_label


def test_empty_channel_and_unlabelled_case_are_distinguished():
    made = make_fingerprint("a", scan(torch.zeros(1, 3, 3, 3)), torch.zeros(1, 3, 3, 3))
    assert np.isnan(made.percentiles).all()
    assert (made.voxels, made.has_label) == (0, False)
    assert class_frequencies([made], {"WT": [1]})[0].imbalance == "never"


def test_region_imbalance_is_other_voxels_per_region_voxel():
    image = torch.ones(1, 10, 10, 10)
    first, second = torch.zeros(2, 1, 10, 10, 10)
    first[0, 0, 0, :6] = 1
    first[0, 0, 1, :2] = 4
    records = [make_fingerprint("a", scan(image), first), make_fingerprint("b", scan(image), second)]
    whole, enhancing, other = class_frequencies(records, {"WT": [1, 4], "ET": [4], "RC": [3]})
    assert (whole.share, whole.imbalance, whole.cases) == (8 / 2000, "1 : 249", 1)
    assert (enhancing.share, enhancing.imbalance, enhancing.cases) == (2 / 2000, "1 : 999", 1)
    assert (other.share, other.imbalance, other.cases) == (0, "never", 0)


def test_class_of_value_0_counts_where_background_has_another_value():
    label = torch.full((1, 10, 10), 255.0)
    label[0, :2] = 0
    made = make_fingerprint("a", scan(torch.ones(1, 10, 10)), label, fill=255)
    membrane, cell = class_frequencies([made], {"membrane": [0], "cell": [255]})
    assert (membrane.share, membrane.imbalance) == (0.2, "1 : 4.0")
    assert (cell.share, cell.imbalance) == (0.8, "1 : 0.2")


def test_a_case_is_shown_where_most_of_its_label_is():
    image = torch.rand(2, 6, 7, 8) + 1
    image[:, 0] = 0
    label = torch.zeros(1, 6, 7, 8)
    label[0, 2:5, 4, 3] = 1
    label[0, 1, 1, 5] = 1
    shown = normalize_case("a", {None: scan(image)}, label, [("zscore", "volume")], {})
    axial, coronal = shown.pictures[None][1]
    assert np.array_equal(axial, image[1, :, :, 3])
    assert np.array_equal(coronal, image[1, :, 4])
    assert np.array_equal(shown.background[1][0], image[1, :, :, 3] == 0)
    assert sorted(shown.voxels[None][1]) == sorted(image[1][image[1] != 0].tolist())
    done = (image[1] - image[1].mean()) / image[1].std(correction=0)
    assert np.allclose(shown.pictures["zscore", "volume"][1][0], done[..., 3], atol=1e-5)
    flat = normalize_case("b", {None: scan(image[..., 3])}, label[..., 3], [("clahe", "slice")], {})
    assert [len(slices) for slices in flat.pictures["clahe", "slice"]] == [1, 1]
