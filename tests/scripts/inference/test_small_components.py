"""Small components are removed by volume in ml."""

import torch
from monai.data import MetaTensor

from scripts.data.decision import RegionDecision
from scripts.inference.small_components import RemoveSmallComponentsd
from tests.made.volumes import AFFINE, FOUR, volume

LABELS = {"NCR": 1, "ED": 2, "ET": 4}
REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
TUMOUR = RegionDecision("regions", {"tumour": [1]}, {"tumour": 1})
NESTED = RegionDecision("regions", REGIONS, LABELS)
CLASSES = RegionDecision("classes", REGIONS, LABELS)
SIX = (slice(0, 6), 5, 5)  # 0.06 ml


def test_minimum_is_in_ml_of_the_scans_voxels():
    clean = RemoveSmallComponentsd("pred", TUMOUR, {"tumour": 0.05})
    image = MetaTensor(volume(FOUR, SIX), affine=AFFINE)
    kept = clean({"pred": image})["pred"]
    assert torch.equal(kept.as_tensor(), volume(SIX))  # in voxels of 1 mm³ both would go


def test_probabilities_of_what_stays_are_left_as_they_are():
    image = MetaTensor(0.6 * volume(FOUR, SIX) + 0.1, affine=AFFINE)
    kept = RemoveSmallComponentsd("pred", TUMOUR, {"tumour": 0.05})({"pred": image.clone()})["pred"]
    assert float(kept[(0, *FOUR)].max()) == 0
    untouched = volume(FOUR) == 0
    assert torch.equal(kept.as_tensor()[untouched], image.as_tensor()[untouched])


def test_each_region_has_its_minimum_and_others_keep_all():
    image = MetaTensor(torch.cat([volume(FOUR, SIX)] * 3), affine=AFFINE)
    clean = RemoveSmallComponentsd("pred", NESTED, {"WT": 0.1, "TC": 0.05})
    kept = clean({"pred": image})["pred"]
    assert [int(channel.sum()) for channel in kept] == [0, 6, 10]


def test_nothing_is_removed_from_an_empty_prediction():
    empty = MetaTensor(volume(), affine=AFFINE)
    assert float(RemoveSmallComponentsd("pred", TUMOUR, {"tumour": 1.0})({"pred": empty})["pred"].sum()) == 0


def test_small_component_of_a_class_becomes_the_next_most_probable():
    image = MetaTensor(torch.cat([0.05 * volume(), *[volume()] * 3]), affine=AFFINE)
    image[0] = 0.1  # background, NCR, ED, ET
    image[2][SIX] = 0.3
    image[3][FOUR] = image[3][SIX] = 0.6
    kept = RemoveSmallComponentsd("pred", CLASSES, {"ET": 0.05})({"pred": image})["pred"]
    labels = CLASSES.classes(kept)[0]
    assert set(labels[SIX].tolist()) == {4}  # large enough
    assert set(labels[FOUR].tolist()) == {0}  # nothing else was found there
    kept = RemoveSmallComponentsd("pred", CLASSES, {"ET": 1.0})({"pred": image})["pred"]
    assert set(CLASSES.classes(kept)[0][SIX].tolist()) == {2}  # oedema was next
