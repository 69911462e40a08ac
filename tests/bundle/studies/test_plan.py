"""Tests of `bundle/studies/plan.py`, `step_memory.py` and `plan_file.py`."""

from functools import partial

import pytest
import yaml

from bundle.benchmarks.steps import MeasuredStep
from bundle.studies.plan import CountedOutputs, Plan, is_set, make_plan
from bundle.studies.plan_file import decide_length, list_configurations, write_plan
from bundle.studies.step_memory import StepMemory
from bundle.studies.topology import choose_topology
from tests.bundle.studies.test_decisions import cohort_of, size
from tests.made import refused

BRAIN = size(0)
LIVER = size(0, (0.7676, 0.7676, 1.0), (512, 512, 482))
PROSTATE = size(0, (0.625, 0.625, 3.6), (319, 320, 20))
NNUNET = partial(CountedOutputs, classes=4, gib=8)


def planned(*sizes, configuration=None, unit="mm", fixed=()) -> Plan:
    return make_plan(cohort_of(*sizes, unit=unit), configuration, NNUNET, "nnunet", fixed)


def values(plan: Plan) -> dict:
    return {line.setting: line.value for line in plan.lines}


def test_axes_of_the_plan_are_those_of_the_file():
    found = values(planned(*[PROSTATE] * 32))
    assert found["patch_size"] == [256, 320, 20]
    assert found["strides"][1] == [2, 2, 1]
    assert found["kernels"][0] == [3, 3, 1]
    assert found["filters"] == [32, 64, 128, 256, 320, 320, 320]


def test_stripped_brains_need_no_low_resolution():
    plan = planned(*[BRAIN] * 1251)
    assert values(plan)["patch_size"] == [128, 128, 128]
    assert plan.exists["2d"] == plan.exists["3d_fullres"] == ""
    assert plan.exists["3d_lowres"] == "a patch covers 64% of a median scan at full resolution"


def test_low_resolution_is_planned_where_it_exists():
    plan = planned(*[LIVER] * 131, configuration="3d_lowres")
    found = values(plan)
    assert found["spacing"] == pytest.approx([1.9186, 1.9186, 2.4995], abs=1e-2)
    assert found["patch_size"] == [128, 128, 128]
    assert not any(plan.exists.values())
    assert found["region_loss::batch"] is False
    reasons = {line.setting: line.reason for line in plan.lines}
    assert "of a median scan of 205 x 205 x 193, 245.6 x 245.6 x 320 mm" in reasons["patch_size"]


def test_cascade_has_the_grid_of_full_resolution():
    full, cascade = (planned(*[LIVER] * 131, configuration=name) for name in ("3d_fullres", "3d_cascade"))
    assert values(full) == values(cascade)
    assert values(full)["region_loss::batch"] is True


def test_configuration_that_does_not_exist_is_refused_with_the_reason():
    assert refused(planned, BRAIN, configuration="3d_lowres") == (
        "--configuration 3d_lowres does not exist here: a patch covers 64% of a median scan at full resolution;"
        " there is 2d, 3d_fullres."
    )


def test_slices_of_volumes_are_planned_as_flat_patches():
    found = values(planned(*[PROSTATE] * 32, configuration="2d"))
    assert found["patch_size"][2] == 1
    assert {stride[2] for stride in found["strides"]} == {kernel[2] for kernel in found["kernels"]} == {1}
    assert found["rotation"][:2] == [0.0, 0.0]
    assert found["scaling"] == [0.2, 0.2, 0.0]


def test_pictures_have_a_2d_plan_alone():
    plan = planned(size(0, (1.0, 1.0), (256, 256)), unit="pixels")
    assert plan.configuration == "2d"
    assert plan.exists["3d_fullres"] == plan.exists["3d_cascade"] == "pictures have two axes"
    assert len(values(plan)["patch_size"]) == 2


def test_volumes_of_one_slice_have_a_2d_plan_alone():
    plan = planned(size(0, (1.0, 1.0, 1.0), (512, 512, 1)))
    assert plan.configuration == "2d"
    assert plan.exists["3d_lowres"] == "the scans have one slice"


def test_deep_patches_turn_about_every_axis():
    assert values(planned(BRAIN))["rotation"] == [0.52] * 3
    assert values(planned(*[PROSTATE] * 32))["rotation"] == [0.0, 0.0, 3.14]


def test_what_a_recipe_sets_is_left_out():
    found = values(planned(BRAIN, fixed=["batch_size", "region_loss"]))
    assert not {"batch_size", "region_loss::batch"} & found.keys()
    assert not is_set("rotation", ["rotation_margin"])


@pytest.fixture
def memory(small_train):
    """Our planner on a small network, its memory by `gib`."""

    def make(gib: float, order=(2, 1, 0), measure=None, fixed=(), **settings) -> StepMemory:
        return StepMemory(small_train(**settings), gib, order, fixed, measure)

    return make


def test_patch_shrinks_and_batch_grows_with_the_memory(memory):
    small, large = (memory(gib).plan((1, 1, 1), (48, 48, 48), 1e7) for gib in (0.72, 0.9))
    assert small.topology.patch < large.topology.patch
    assert large.batch > 2


def test_network_is_asked_for_what_a_count_cannot_see(memory):
    topology = choose_topology((1, 1, 1), (32, 32, 32))
    plain = memory(8).count_tensors(topology, 8)
    channels = [f"c{number}" for number in range(64)]
    assert memory(8, channels=channels, channel_files={}).count_tensors(topology, 8) > plain
    assert memory(8, recompute=True).count_tensors(topology, 8) < plain


def test_batch_of_a_recipe_stays(memory):
    found = memory(8, fixed=["batch_size"], batch_size=1).plan((1, 1, 1), (48, 48, 48), 1e9)
    assert found.batch == 1


def test_memory_that_holds_no_patch_is_refused(memory):
    assert "no patch of scans of 48 x 48 x 48 voxels fits 0.5 GiB" in refused(
        memory(0.5).plan, (1, 1, 1), (48, 48, 48), 1e9
    )


def test_measured_steps_correct_the_count(memory):
    seen = []

    def measure(settings) -> MeasuredStep | None:  # far more than is counted
        seen.append(settings["patch_size"])
        own = choose_topology((1, 1, 1), settings["patch_size"])
        return MeasuredStep(0.5, 0.7 + 6 * search.count_tensors(own, settings["batch_size"]))

    search = memory(0.9, measure=measure)
    chosen, step = search.plan_measured(lambda: search.plan((1, 1, 1), (48, 48, 48), 1e5, exact=True), {})
    assert step.gib <= 0.9
    assert len(seen) > 1
    assert chosen.topology.patch[::-1] == tuple(seen[-1])  # the axes of planning, and of the file


def test_step_out_of_memory_makes_the_next_one_smaller(memory):
    def measure(settings) -> MeasuredStep | None:
        return MeasuredStep(0.5, 0.9) if max(settings["patch_size"]) < 48 else None

    search = memory(0.9, measure=measure)
    chosen, _ = search.plan_measured(lambda: search.plan((1, 1, 1), (48, 48, 48), 1e5, exact=True), {})
    assert max(chosen.topology.patch) < 48


def test_hours_without_a_measurement_give_no_epochs():
    (line,) = decide_length(8, 250, None)
    assert (line.setting, line.value) == ("max_minutes", 480)
    assert "no step was measured" in line.reason
    assert decide_length(None, 250, MeasuredStep(1, 1)) == []


def test_hours_and_a_measured_step_give_epochs():
    minutes, epochs = decide_length(1, 250, MeasuredStep(0.5, 6))
    assert (minutes.value, epochs.setting, epochs.value) == (60, "max_epochs", 29)
    assert "0.5 s measured" in epochs.reason


def test_every_line_of_the_file_has_its_reason(tmp_path):
    plan = planned(*[BRAIN] * 1251)
    write_plan(tmp_path / "plan.yaml", ["A head."], plan, decide_length(8, 250, None))
    text = (tmp_path / "plan.yaml").read_text()
    assert yaml.safe_load(text) == values(plan) | {"max_minutes": 480.0}
    lines = text.splitlines()
    assert lines[0] == "# A head."
    assert all(lines[number - 1].startswith("# ") for number, line in enumerate(lines) if line[:1].isalpha())
    assert max(map(len, (line for line in lines if line.startswith("#")))) <= 120
    assert "# 3d_fullres: this plan" in lines
    assert list_configurations(plan)[0] == "2d: exists"
