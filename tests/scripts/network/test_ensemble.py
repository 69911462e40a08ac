"""An ensemble is the mean of its members, and loads only runs of one configuration, verified one by one."""

import pytest
import torch

from scripts.files import write_text
from scripts.network.checkpoint_file import save_state
from scripts.network.ensemble import Ensemble, find_member_weights, load_members
from scripts.network.precision import prepare_network
from scripts.network.shapes import count_voxel_bytes, size_divisor
from scripts.network.weights import read_min_component
from scripts.training.run_folder import RunFolder
from tests.made import refused
from tests.made.network import network

SCAN = torch.randn(1, 4, 16, 16, 16)


def output(module: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(SCAN)


@pytest.fixture
def runs(tmp_path):
    """Folders of two runs with different weights."""
    made = []
    for seed in (1, 2):
        settings = {"spacing": [1, 1, 1], "normalize": "zscore_nonzero", "fold": seed}
        folder = RunFolder(tmp_path / f"run{seed}", False, settings, {})
        folder.path.mkdir()
        folder.keep_weights(network(seed=seed).state_dict(), {"WT": 0.1}, {})
        made.append(folder.path)
    return made


def change(run, old: str, new: str) -> None:
    file = run / "settings.yaml"
    write_text(file, file.read_text().replace(old, new))


def test_ensemble_gives_the_mean_of_its_members(runs):
    mean = (output(network(seed=1)) + output(network(seed=2))) / 2
    files = find_member_weights("", ensemble=runs)
    ensemble = load_members(network(), files)
    assert torch.allclose(output(ensemble), mean, atol=1e-6)
    assert torch.allclose(output(prepare_network(ensemble, channels_last=True)), mean, atol=1e-5)
    assert torch.allclose(output(torch.jit.script(load_members(network(), files))), mean, atol=1e-6)


def test_two_identical_members_equal_the_member(runs):
    ensemble = load_members(network(), find_member_weights("", ensemble=[runs[0], runs[0]]))
    assert torch.equal(output(ensemble), output(network(seed=1)))


def test_members_need_the_memory_of_one_and_its_sizes():
    one, several = network(), Ensemble(network(), 3)
    size = [32, 32, 32]
    assert size_divisor(several, 4, size) == size_divisor(one, 4, size)
    assert count_voxel_bytes(several.eval(), 4, size) < 1.3 * count_voxel_bytes(one.eval(), 4, size)


def test_a_training_step_changes_one_member():
    ensemble = Ensemble(network(heads=True), 2).train()
    prepare_network(ensemble)(SCAN)["logits"].sum().backward()
    trained = [any(weight.grad is not None for weight in member.parameters()) for member in ensemble.members]
    assert sorted(trained) == [False, True]


def test_runs_of_other_settings_are_refused_by_name(runs):
    change(runs[1], "zscore_nonzero", "minmax")
    message = refused(find_member_weights, "", ensemble=runs)
    assert "run1" in message
    assert "run2 differ in normalize: the logits" in message


def test_another_file_of_a_members_weights_is_refused(runs):
    save_state(runs[1] / "model.pt", network(seed=3).state_dict())
    assert "run2/model.pt is not the file that the run wrote" in refused(find_member_weights, "", ensemble=runs)


def test_settings_of_a_run_outside_the_ensemble_are_refused(runs):
    message = refused(find_member_weights, "", {"runs/other/model.pt": "0" * 64}, ensemble=runs)
    assert "runs/other/model.pt, which is not in the ensemble" in message


@pytest.mark.parametrize("ensemble", ["runs/a", [], 3])
def test_ensemble_that_is_no_list_of_runs_is_refused(ensemble):
    assert "expected folders of runs" in refused(find_member_weights, "", ensemble=ensemble)


def test_folder_without_a_run_is_refused(runs, tmp_path):
    assert "none is not a run" in refused(find_member_weights, "", ensemble=[*runs, tmp_path / "none"])


def test_component_sizes_that_members_share_are_used(runs, capsys):
    files = find_member_weights("", ensemble=runs)
    assert read_min_component(files, "ml") == {"WT": 0.1}
    change(runs[1], "WT: 0.1", "WT: 0.5")
    assert read_min_component(files, "ml") == {}
    assert "differ in min_component_ml, so none is applied" in capsys.readouterr().out
