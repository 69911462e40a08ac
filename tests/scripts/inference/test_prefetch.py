"""Tests of `scripts/inference/prefetch.py`."""

import threading

import pytest
import torch
from monai.data import Dataset
from monai.transforms import Lambdad

from scripts.errors import InputError
from scripts.inference.prefetch import PrefetchedDataset


def test_next_case_is_prepared_while_the_network_runs():
    prepared = threading.Event()

    class Cases(torch.utils.data.Dataset):
        data = ({"case": 0}, {"case": 1})

        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index == 1:
                prepared.set()
            return {"case": index}

        def __deepcopy__(self, memo):  # an event cannot be copied
            return self

    cases = PrefetchedDataset(Cases())
    assert cases[0] == {"case": 0}
    assert prepared.wait(timeout=10)  # without being asked for
    assert cases[1] == {"case": 1}


def test_case_that_fails_to_prepare_fails_at_its_turn():
    cases = PrefetchedDataset(Dataset([{"x": 1.0}, {"y": 1.0}], Lambdad("x", lambda x: x + 1)))
    assert cases[0] == {"x": 2.0}
    with pytest.raises(RuntimeError):
        cases[1]


def test_case_with_unusable_files_is_refused_at_its_turn():
    def read(image: str) -> str:
        raise InputError(f"{image} is damaged.")

    entries = [{"case": "a", "image": "a.nii"}, {"case": "b", "image": "b.nii", "refused": "b lacks T2."}]
    cases = PrefetchedDataset(Dataset(entries, Lambdad("image", read)))
    assert cases[0] == {"case": "a", "refused": "a.nii is damaged."}
    assert cases.refused == {"a": "a.nii is damaged."}
    assert cases[1] == {"case": "b", "refused": "b lacks T2."}
