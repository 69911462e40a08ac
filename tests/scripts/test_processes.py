"""Do several processes end at the same step, and does each know the cases of all?"""

from scripts.processes import agreed, gathered


def test_a_run_of_one_process_goes_by_its_own_clock():
    assert agreed(1.25) == 1.25


def test_processes_agree_on_the_clock_of_the_first(in_two_processes):
    assert in_two_processes(lambda rank: agreed(1.5 + rank)) == [1.5, 1.5]


def test_one_process_has_its_own_cases():
    assert gathered(["a", "b"]) == ["a", "b"]


def test_each_process_has_the_cases_of_all_however_many_each_had(in_two_processes):
    assert in_two_processes(lambda rank: gathered([["a", "b"], ["c"]][rank])) == [["a", "b", "c"]] * 2
