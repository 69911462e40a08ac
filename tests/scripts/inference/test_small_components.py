"""Small components are removed by volume in ml."""

import torch
from monai.data import MetaTensor

from scripts.inference.small_components import RemoveSmallComponentsd
from tests.made.volumes import AFFINE, FOUR, REGION, volume

SIX = (slice(0, 6), 5, 5)  # 0.06 ml


def test_minimum_is_in_ml_of_the_scans_voxels():
    clean = RemoveSmallComponentsd("pred", REGION, {"tumour": 0.05})
    image = MetaTensor(volume(FOUR, SIX), affine=AFFINE)
    kept = clean({"pred": image})["pred"]
    assert torch.equal(kept.as_tensor(), volume(SIX))  # in voxels of 1 mm³ both would go


def test_probabilities_of_what_stays_are_left_as_they_are():
    image = MetaTensor(0.6 * volume(FOUR, SIX) + 0.1, affine=AFFINE)
    kept = RemoveSmallComponentsd("pred", REGION, {"tumour": 0.05})({"pred": image.clone()})["pred"]
    assert float(kept[(0, *FOUR)].max()) == 0
    untouched = volume(FOUR) == 0
    assert torch.equal(kept.as_tensor()[untouched], image.as_tensor()[untouched])


def test_each_region_has_its_minimum_and_others_keep_all():
    image = MetaTensor(torch.cat([volume(FOUR, SIX)] * 3), affine=AFFINE)
    clean = RemoveSmallComponentsd("pred", ["WT", "TC", "ET"], {"WT": 0.1, "TC": 0.05})
    kept = clean({"pred": image})["pred"]
    assert [int(channel.sum()) for channel in kept] == [0, 6, 10]


def test_nothing_is_removed_from_an_empty_prediction():
    empty = MetaTensor(volume(), affine=AFFINE)
    assert float(RemoveSmallComponentsd("pred", REGION, {"tumour": 1.0})({"pred": empty})["pred"].sum()) == 0
