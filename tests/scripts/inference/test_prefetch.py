"""Tests of `scripts/inference/prefetch.py`."""

import threading

import pytest
import torch
from monai.data import Dataset
from monai.transforms import Lambdad

from scripts.errors import InputError
from scripts.inference import prefetch
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


def test_cases_prepared_at_the_same_time_come_in_order():
    together = threading.Barrier(3, timeout=10)

    def wait(number: int) -> int:
        together.wait()
        return number

    cases = PrefetchedDataset(Dataset([{"x": i} for i in range(6)], Lambdad("x", Waiting(wait))), ahead=3)
    assert [cases[i]["x"] for i in range(6)] == [*range(6)]


class Waiting:
    """A function that stays itself in a copy."""

    def __init__(self, call):
        self.call = call

    def __call__(self, value):
        return self.call(value)

    def __deepcopy__(self, memo):
        return self


def test_new_cases_replace_the_former_ones_in_every_thread():
    cases = PrefetchedDataset(Dataset([{"x": 1}] * 4, Lambdad("x", lambda x: -x)), ahead=3)
    assert cases[0] == {"x": -1}
    cases.replace_cases([{"x": i} for i in range(5)])
    assert [cases[i]["x"] for i in range(5)] == [0, -1, -2, -3, -4]


@pytest.mark.parametrize("ahead", [0, 1.5, True])
def test_ahead_that_is_no_number_of_cases_is_refused(ahead):
    with pytest.raises(InputError, match="cases_ahead is"):
        PrefetchedDataset(Dataset([]), ahead=ahead)


@pytest.mark.parametrize(
    ("device", "cores", "ahead"), [("cpu", 16, 1), ("cuda", 16, 4), ("cuda:1", 3, 2), ("cuda", 1, 1)]
)
def test_a_gpu_gets_more_cases_ahead_as_cores_allow(monkeypatch, device, cores, ahead):
    monkeypatch.setattr(prefetch, "available_cores", lambda: cores)
    assert prefetch.default_cases_ahead(device) == ahead
    assert prefetch.default_cases_ahead(device, device) == 1


def test_a_card_without_memory_refuses_no_case():
    def prepare(image: str) -> str:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        except torch.OutOfMemoryError as error:
            raise RuntimeError("applying transform") from error

    cases = PrefetchedDataset(Dataset([{"case": "a", "image": "a.nii"}], Lambdad("image", prepare)))
    with pytest.raises(RuntimeError, match="applying transform"):
        cases[0]
    assert cases.refused == {}


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
