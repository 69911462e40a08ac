"""Every name in a workflow, a task or a recipe exists."""

from __future__ import annotations

import pytest

from scripts.config_names import unresolved_names
from tests.made import ROOT

WORKFLOWS = ("train", "evaluate", "inference")
OVERLAYS = {"train": ["multi_gpu_train.yaml", "recipes", "tasks"], "evaluate": ["tasks"], "inference": ["tasks"]}
PAIRS = [
    (workflow, file.relative_to(ROOT).as_posix())
    for workflow, names in OVERLAYS.items()
    for name in names
    for file in ([ROOT / "configs" / name] if name.endswith(".yaml") else sorted((ROOT / "configs" / name).glob("*")))
]


def test_every_config_is_checked():
    looked_at = {f"configs/{workflow}.yaml" for workflow in WORKFLOWS} | {overlay for _, overlay in PAIRS}
    studies = {*(ROOT / "configs" / "studies").glob("*.yaml")}  # no configs of MONAI; their own test
    every = {*(ROOT / "configs").rglob("*.yaml")} - studies
    assert looked_at == {path.relative_to(ROOT).as_posix() for path in every}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_name_in_a_workflow_exists(read_config, workflow):
    assert unresolved_names(read_config(f"configs/{workflow}.yaml").config) == []


@pytest.mark.parametrize(("workflow", "overlay"), PAIRS)
def test_every_name_in_an_overlay_exists(read_config, workflow, overlay):
    assert unresolved_names(read_config(f"configs/{workflow}.yaml", overlay).config) == []
