"""Checkpoints load into their own network and into no other."""

import hashlib

import pytest
import torch

from scripts.errors import InputError
from scripts.network.checkpoint_file import read_state, save_state
from scripts.network.weights import init_from_weights, load_weights, read_weights, unwrap_ddp, without_heads
from tests.made import refused
from tests.made.network import network


@pytest.fixture
def model(tmp_path):
    """model.pt of a network that learned with coarse heads, as a run leaves it, and that network."""
    learned = network(heads=True, seed=1)
    save_state(tmp_path / "model.pt", without_heads(learned.state_dict()))
    return tmp_path / "model.pt", learned


# ---- weights -------------------------------------------------------------------------------------------------------


def test_weights_without_heads_load_strictly_and_give_the_same_output(model):
    path, learned = model
    plain = load_weights(network(heads=False), path)
    scan = torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(plain.eval()(scan), learned.eval()(scan))


def test_only_heads_are_left_out():
    with_heads, without = network(heads=True).state_dict(), network(heads=False).state_dict()
    kept = without_heads(with_heads)
    assert kept.keys() == without.keys()
    assert len(kept) < len(with_heads)
    assert all(not tensor.requires_grad and tensor.device.type == "cpu" for tensor in kept.values())


def test_wider_networks_checkpoint_is_refused_with_the_first_different_weight(model):
    message = refused(load_weights, network(filters=(6, 8, 8, 8)), model[0])
    assert "model.pt is a checkpoint of another network" in message
    assert "input_block.conv1.conv.weight: (4, 4, 3, 3, 3) against (6, 4, 3, 3, 3) in the config" in message
    assert "settings.yaml" in message


def test_a_weight_too_few_or_too_many_is_called_absent(model, tmp_path):
    assert "absent against" in refused(load_weights, network(filters=(4, 8, 8, 8, 8)), model[0])
    save_state(tmp_path / "with_heads.pt", model[1].state_dict())
    assert "against absent in the config" in refused(load_weights, network(heads=False), tmp_path / "with_heads.pt")


def test_the_checkpoint_for_other_regions_is_refused(model):
    assert "(3, 4, 1, 1, 1) against (1, 4, 1, 1, 1)" in refused(load_weights, network(out=1), model[0])


def test_run_state_gives_its_averaged_weights(tmp_path):
    average = torch.optim.swa_utils.AveragedModel(network(heads=True, seed=5))
    state = {"network": network(heads=True).state_dict(), "average": average.state_dict(), "engine": {"epoch": 3}}
    save_state(tmp_path / "checkpoint.pt", state)
    loaded = load_weights(network(heads=False), tmp_path / "checkpoint.pt").state_dict()
    assert all(torch.equal(tensor, average.module.state_dict()[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize("key", ["model", "state_dict", "network", None])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_usual_forms_of_weights_load_as_plain_ones(tmp_path, key, prefix):
    plain = network(seed=5).state_dict()
    weights = {prefix + name: tensor for name, tensor in plain.items()}
    torch.save({key: weights, "epoch": 3} if key else weights, tmp_path / "other.pt")
    loaded = load_weights(network(), tmp_path / "other.pt").state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize("state", [{}, {"epoch": 3}, {key: {"a": torch.zeros(1)} for key in ("model", "network")}])
def test_a_file_without_clear_weights_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "unclear.pt")
    assert "expected weights by name" in refused(read_weights, tmp_path / "unclear.pt")


def test_missing_checkpoint_is_reported_with_a_remedy(tmp_path):
    assert "there is no checkpoint" in refused(load_weights, network(), tmp_path / "model.pt")


@pytest.mark.parametrize("left", [100, 0.5, 0.99])
def test_truncated_checkpoint_ends_in_one_sentence(model, left):
    content = model[0].read_bytes()
    model[0].write_bytes(content[: left if left == 100 else int(left * len(content))])
    assert "is not a readable checkpoint: it may be damaged or truncated" in refused(load_weights, network(), model[0])


def test_a_file_with_something_else_in_it_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    assert "holds a list: expected a dictionary of weights" in refused(read_state, tmp_path / "list.pt")
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "pickled.pt")  # could run code when loaded
    assert "is not a readable checkpoint" in refused(read_state, tmp_path / "pickled.pt")


def test_the_same_weights_are_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        save_state(tmp_path / f"{name}.pt", network(seed=3).state_dict())
    first, second = (hashlib.sha256((tmp_path / f"{name}.pt").read_bytes()).hexdigest() for name in ("first", "second"))
    assert first == second


@pytest.mark.parametrize("room", [10, 5_000, 50_000])
def test_a_full_disk_leaves_the_old_checkpoint_and_says_why(tmp_path, full_disk, room):
    path = tmp_path / "checkpoint.pt"
    save_state(path, {"epoch": 1})
    with full_disk(room), pytest.raises(InputError) as caught:
        save_state(path, network().state_dict())
    assert "checkpoint.pt cannot be written (" in str(caught.value)
    assert "enforce fail" not in str(caught.value)  # torch's own words
    assert read_state(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


# ---- starting from another run's weights ---------------------------------------------------------------------------


def test_training_starts_from_another_tasks_weights_except_its_own_regions(model, capsys):
    path, learned = model
    started = init_from_weights(network(heads=True, seed=9, out=1), path)
    own, other = started.state_dict(), learned.state_dict()
    assert torch.equal(own["input_block.conv1.conv.weight"], other["input_block.conv1.conv.weight"])
    assert own["output_block.conv.conv.weight"].shape[0] == 1
    assert f"init_from {path}: took" in capsys.readouterr().out


def test_further_input_channels_start_without_effect(model):
    path, learned = model
    more = network(channels=6)
    started, scan = init_from_weights(more, path).eval(), torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        given = torch.cat([scan, torch.randn(1, 2, 16, 16, 16)], 1)
        assert torch.allclose(started(given), learned.eval()(scan), atol=1e-5)


def test_without_a_start_the_network_keeps_its_random_weights():
    before, after = network().state_dict(), init_from_weights(network(), None).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_of_an_unrelated_network_cannot_start_training(tmp_path):
    save_state(tmp_path / "model.pt", network(filters=(6, 10, 10, 10)).state_dict())
    message = refused(init_from_weights, network(), tmp_path / "model.pt")
    assert "fits only" in message
    assert "expected the same network" in message


def test_weights_of_several_processes_are_those_of_the_network_itself(tmp_path, in_two_processes):
    def names(rank: int) -> list[str]:
        wrapped = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
        return list(unwrap_ddp(wrapped).state_dict())

    assert in_two_processes(names) == [["weight", "bias"]] * 2
    plain = torch.nn.Linear(1, 1)
    assert unwrap_ddp(plain) is plain
