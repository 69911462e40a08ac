"""Cases with the rarest region are drawn more often, and patches are centred on it."""

import numpy as np
import pytest
import torch

from scripts.data.patch_dataset import PreparedCases
from scripts.data.sampler import EpochSampler
from scripts.errors import InputError
from scripts.training.rare_first import RareFirst

REGIONS = ["WT", "ET"]
VOXELS = [([5, 6, 7], [7]), ([1, 2], []), ([3], []), ([], [])]  # of each case in WT and ET


@pytest.fixture
def rare(monkeypatch):
    """`RareFirst` over four cases with known voxels."""

    class Cases(list):
        def __init__(self) -> None:
            super().__init__(VOXELS)
            self.cases = self

        def stored_case(self, number: int) -> dict:
            return {"label_indices": [torch.tensor([0]), *map(torch.tensor, VOXELS[number])]}

    return lambda **settings: RareFirst(Cases(), REGIONS, **settings)


def test_weights_are_one_over_the_root_of_the_share(rare):
    assert rare().weights() == pytest.approx([2.0, np.sqrt(4 / 3), np.sqrt(4 / 3), 1.0])


def test_typed_hierarchy_replaces_the_counted_one(rare):
    first = rare(hierarchy=["WT", "ET"])
    assert first.weights() == pytest.approx([np.sqrt(4 / 3)] * 3 + [1.0])
    assert {first.centre(0, np.random.default_rng(seed)) for seed in range(50)} == {None, 5, 6, 7}


@pytest.mark.parametrize(("case", "voxels"), [(0, {7}), (1, {1, 2}), (3, set())])
def test_centres_are_voxels_of_the_rarest_region_of_the_case(rare, case, voxels):
    first = rare(share=0.5)
    first.weights()
    found = [first.centre(case, np.random.default_rng(seed)) for seed in range(200)]
    assert {*found} == {None, *voxels}
    assert np.mean([centre is not None for centre in found]) == pytest.approx(0.5 if voxels else 0.0, abs=0.1)


def test_centres_are_known_to_a_run_resumed_within_an_epoch(rare):
    assert {rare(share=1.0).centre(0, np.random.default_rng(seed)) for seed in range(5)} == {7}


@pytest.mark.parametrize("wrong", [{"hierarchy": ["TT"]}, {"hierarchy": []}, {"share": 1.5}])
def test_wrong_settings_are_refused(rare, wrong):
    with pytest.raises(InputError, match="expected"):
        rare(**wrong)


def test_recipe_draws_patches_of_the_rarest_region(small_train):
    config = small_train("configs/recipes/rare_first.yaml", rare_share=1.0)
    dataset, sampler = config.get_parsed_content("train#dataset"), config.get_parsed_content("train#sampler")
    assert isinstance(dataset.cases, PreparedCases)
    holds = [bool(case["label"][-1].any()) for case in map(dataset.cases.stored_case, range(len(dataset)))]
    patches = [(index[0], dataset[index]) for epoch in range(4) for index in _epoch(sampler, epoch)]
    assert any(holds)
    assert all(bool(patch["label"][-1].any()) for case, patch in patches if holds[case])


def _epoch(sampler: EpochSampler, epoch: int) -> list:
    sampler.set_epoch(epoch)
    return list(sampler)
