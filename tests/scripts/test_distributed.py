"""Several processes divide the work, end at the same step, and share their results."""

import pytest
import torch

from scripts.distributed import gather_items, is_first_process, sum_over_processes, synchronized, wait_for_all
from scripts.inference.scans import own_cases

CASES = [{"case": name, "image": [f"{name}_t1.nii", f"{name}_t2.nii"]} for name in "abcde"]


def test_a_run_of_one_process_goes_by_its_own_clock():
    assert synchronized(1.25) == 1.25


def test_processes_agree_on_the_clock_of_the_first(in_two_processes):
    assert in_two_processes(lambda rank: synchronized(1.5 + rank)) == [1.5, 1.5]


def test_one_process_has_its_own_cases():
    assert gather_items(["a", "b"]) == ["a", "b"]


def test_each_process_has_all_cases_however_many_it_had(in_two_processes):
    assert in_two_processes(lambda rank: gather_items([["a", "b"], ["c"]][rank])) == [["a", "b", "c"]] * 2


def test_single_process_takes_every_case_without_waiting():
    wait_for_all()
    assert is_first_process()
    assert own_cases(lambda: CASES) == CASES


def test_the_first_process_is_known_before_they_have_met(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()


def test_every_case_is_taken_by_one_process_and_checked_once(in_two_processes):
    def names(rank: int) -> list[str]:
        assert is_first_process() == (rank == 0)
        return [case["case"] for case in own_cases(lambda: CASES if rank == 0 else pytest.fail("looked twice"))]

    assert in_two_processes(names) == [["a", "c", "e"], ["b", "d"]]


def test_a_process_may_have_nothing_to_do(in_two_processes):
    assert in_two_processes(lambda rank: len(own_cases(lambda: CASES[:1]))) == [1, 0]


def test_pages_of_a_file_stay_in_one_process(in_two_processes):
    cases = [{"case": f"{name}_{k}", "image": f"{name}.tif#{k}"} for name in "ab" for k in range(3)]
    parts = in_two_processes(lambda rank: [case["case"] for case in own_cases(lambda: cases)])
    assert parts == [["a_0", "a_1", "a_2"], ["b_0", "b_1", "b_2"]]


def test_a_sum_is_that_of_all_processes(in_two_processes):
    assert (
        in_two_processes(lambda rank: sum_over_processes(torch.tensor([1.0, 10.0 * rank])).tolist())
        == [[2.0, 10.0]] * 2
    )
