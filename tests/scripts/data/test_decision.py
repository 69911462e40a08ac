"""Which regions a voxel belongs to, by regions and by classes."""

import pytest
import torch

from scripts.data.decision import ClassesToLabelsd, RegionDecision, RegionMasksd, background_logits, output_channels
from scripts.data.regions import LabelsToRegionsd
from scripts.errors import InputError

LABELS = {"NCR": 1, "ED": 2, "ET": 4}
REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}


def test_channels_are_regions_or_background_and_labels():
    assert output_channels("regions", REGIONS, LABELS) == REGIONS
    assert output_channels("classes", REGIONS, LABELS) == {"background": [0], "NCR": [1], "ED": [2], "ET": [4]}
    assert output_channels("classes", {"membrane": [0]}, {"cell": 255, "membrane": 0}) == {
        "membrane": [0], "cell": [255],
    }  # fmt: skip


def test_another_decision_is_refused():
    with pytest.raises(InputError, match="decision is 'softmax': expected regions or classes"):
        output_channels("softmax", REGIONS, LABELS)


@pytest.mark.parametrize("decision", ["regions", "classes"])
def test_certain_logits_give_back_the_label_map(decision):
    labels = torch.tensor([0, 1, 2, 4]).repeat(8).reshape(1, 4, 4, 2)
    outputs = output_channels(decision, REGIONS, LABELS)
    target = LabelsToRegionsd("label", outputs)({"label": labels})["label"]
    expected = LabelsToRegionsd("label", REGIONS)({"label": labels})["label"]
    logits = 9.0 * target - 4.5
    probabilities = logits.sigmoid() if decision == "regions" else logits.softmax(0)
    decide = RegionDecision(decision, REGIONS, LABELS)
    assert torch.equal(RegionMasksd("pred", decide)({"pred": probabilities})["pred"], expected.float())
    if decision == "classes":
        assert torch.equal(ClassesToLabelsd("pred", decide)({"pred": probabilities})["pred"].long(), labels)


@pytest.mark.parametrize("decision", ["regions", "classes"])
def test_a_batch_of_logits_is_decided_like_its_items(decision):
    logits = torch.randn(2, len(output_channels(decision, REGIONS, LABELS)), 5, 4, 3)
    decide = RegionDecision(decision, REGIONS, LABELS, threshold=0.0)
    items = torch.stack([decide.masks(item) for item in logits])
    assert torch.equal(decide.masks(logits, axis=1), items)
    assert 0 < items.float().mean() < 1


@pytest.mark.parametrize("decision", ["regions", "classes"])
def test_background_logits_are_in_no_region(decision):
    outputs = output_channels(decision, REGIONS, LABELS)
    logits = torch.tensor(background_logits(outputs)).reshape(-1, 1, 1)
    assert not RegionDecision(decision, REGIONS, LABELS, threshold=0.0).masks(logits).any()
