"""Tests of `scripts/training/run_state.py`."""

import pytest
import torch
from ignite.engine import Engine, Events

from scripts.errors import InputError
from scripts.network.checkpoint_file import read_state, save_state
from scripts.training import run_state
from scripts.training.run_state import RunState, copy_to_host
from tests.made import refused
from tests.made.network import network


class Training:
    """Three steps an epoch of a network, its optimiser with momentum, and the state that is kept of them."""

    def __init__(self, path, resume: bool = False, writes: bool = True, kill_after: int | None = None) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
        self.engine = Engine(self.step)
        self.engine.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        if kill_after is not None:
            self.engine.add_event_handler(Events.ITERATION_COMPLETED(once=kill_after), self.kill)
        objects = {"network": self.network, "optimizer": self.optimizer}
        RunState(path, objects, resume=resume, writes=writes).attach(self.engine)

    def step(self, engine: Engine, _) -> None:
        x = torch.randn(4, 2, generator=torch.Generator().manual_seed(engine.state.iteration))
        self.optimizer.zero_grad()
        engine.scaler.scale(((self.network(x) - 1) ** 2).mean()).backward()
        engine.scaler.step(self.optimizer)
        engine.scaler.update()

    def kill(self, _: Engine) -> None:
        raise KeyboardInterrupt

    def run(self, epochs: int = 4) -> "Training":
        self.engine.run(range(3), max_epochs=epochs)
        return self


def test_killed_run_resumes_from_its_last_epoch_to_identical_weights(tmp_path):
    whole = Training(tmp_path / "whole.pt").run()
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path / "killed.pt", kill_after=8).run()  # in the third epoch
    resumed = Training(tmp_path / "killed.pt", resume=True)
    epochs = []
    resumed.engine.add_event_handler(Events.EPOCH_STARTED, lambda e: epochs.append(e.state.epoch))
    resumed.run()
    assert epochs == [3, 4]
    assert torch.equal(resumed.network.weight, whole.network.weight)
    assert resumed.engine.scaler.get_scale() == whole.engine.scaler.get_scale()
    assert resumed.engine.state.iteration == 12


def test_run_starts_from_scratch_without_resume(tmp_path):
    Training(tmp_path / "state.pt").run()
    again = Training(tmp_path / "state.pt")
    epochs = []
    again.engine.add_event_handler(Events.EPOCH_STARTED, lambda e: epochs.append(e.state.epoch))
    again.run(epochs=2)
    assert epochs == [1, 2]


def test_resumed_run_without_a_finished_epoch_starts_at_the_first(tmp_path):
    assert Training(tmp_path / "state.pt", resume=True).run(epochs=1).engine.state.epoch == 1


def test_a_finished_run_does_nothing_when_resumed(tmp_path):
    finished = Training(tmp_path / "state.pt").run(epochs=2)
    resumed = Training(tmp_path / "state.pt", resume=True).run(epochs=2)
    assert torch.equal(resumed.network.weight, finished.network.weight)


def test_only_the_process_that_writes_leaves_a_checkpoint(tmp_path):
    Training(tmp_path / "state.pt", writes=False).run(epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["another network", "a part is missing"])
def test_state_that_does_not_fit_names_the_part_and_config(tmp_path, change):
    path = tmp_path / "state.pt"
    Training(path).run(epochs=1)
    state = read_state(path)
    if change == "another network":
        state["network"] = torch.nn.Linear(3, 1).state_dict()
    else:
        del state["network"]
    save_state(path, state)
    message = refused(Training(path, resume=True).run)
    assert "state.pt does not fit this run's network" in message
    assert "config.yaml" in message


def test_damaged_state_ends_in_one_sentence(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"PK half a zip")
    assert "is not a readable checkpoint" in refused(Training(tmp_path / "state.pt", resume=True).run)


def test_host_copy_of_a_state_does_not_change(tmp_path):
    net = network(heads=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.randn(1, 4, 16, 16, 16)).sum().backward()
    optimizer.step()
    state = {"network": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}
    save_state(tmp_path / "first.pt", state)
    copied = copy_to_host(state)
    optimizer.step()
    save_state(tmp_path / "second.pt", copied)
    assert (tmp_path / "first.pt").read_bytes() == (tmp_path / "second.pt").read_bytes()


def test_a_full_disk_ends_the_run_at_its_next_checkpoint(tmp_path, monkeypatch):
    def full(path, state) -> None:
        if state["engine"]["epoch"] == 2:
            raise InputError("the disk is full")
        save_state(path, state)

    monkeypatch.setattr(run_state, "save_state", full)
    run = Training(tmp_path / "state.pt")
    assert refused(run.run) == "the disk is full"
    assert run.engine.state.epoch == 3
    assert read_state(tmp_path / "state.pt")["engine"]["epoch"] == 1
    assert refused(Training(tmp_path / "state.pt").run, 2) == "the disk is full"  # in the last epoch
