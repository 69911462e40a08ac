"""Tests of `scripts/inference/prefetch.py`."""

import threading

import pytest
import torch
from monai.data import Dataset
from monai.transforms import Lambdad

from scripts.inference.prefetch import PrefetchedDataset


def test_next_case_is_prepared_while_the_network_runs():
    prepared = threading.Event()

    class Cases(torch.utils.data.Dataset):
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
