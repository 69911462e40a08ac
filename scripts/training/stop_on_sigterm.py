"""Stopping a training within an epoch when SIGTERM comes."""

from collections.abc import Callable

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer

from scripts import stopping
from scripts.distributed import process_count, sum_over_processes, wait_for_all
from scripts.training.handlers import completes_step, start_copy_to_host
from scripts.training.run_state import RunState


class StopOnSigterm:
    """Finishes the current step when SIGTERM comes, saves the state and ends the process (`scripts.stopping`).

    A run resumed from this state ends with the weights of an uninterrupted one.

    Args:
        run_state: saves the state.
        validator: the validation engine. It stops after the current case; a resumed run repeats this validation first.
            Several processes, which wait for each other's scores, finish it.

    All processes must stop after the same step, so each step sums over them whether SIGTERM has come: one number, next
    to the gradients, which are summed anyway. On a GPU it is read one step later, so that no step waits for it.

    Attach it to the trainer, after the `RunState`.
    """

    def __init__(self, run_state: RunState, validator: Engine | None = None) -> None:
        self.run_state, self.validator = run_state, validator
        self.arriving: tuple[torch.Tensor, Callable[[], None] | None] = torch.zeros(()), None

    def attach(self, engine: SupervisedTrainer) -> None:
        """Defer SIGTERM while the engine runs, and look for it after each step, validated case and epoch."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        engine.add_event_handler(Events.COMPLETED, stopping.defer_sigterm, False)
        if self.validator is not None:
            self.validator.add_event_handler(Events.ITERATION_COMPLETED, self._after_validated_case, engine)

    def _start(self, engine: SupervisedTrainer) -> None:
        stopping.defer_sigterm(True)
        state = engine.state
        if state.iteration == (state.epoch + 1) * state.epoch_length:  # stopped after an epoch's last step
            state.epoch += 1
            engine.fire_event(Events.EPOCH_COMPLETED)

    def _after_step(self, engine: SupervisedTrainer) -> None:
        if not completes_step(engine):
            return  # accumulated gradients are not saved
        if self._is_requested(engine, later=True):
            self._stop(engine)

    def _after_validated_case(self, engine: SupervisedTrainer) -> None:
        if process_count() == 1 and stopping.is_requested():
            self._stop(engine)

    def _after_epoch(self, engine: SupervisedTrainer) -> None:
        ends = engine.should_terminate or engine.state.epoch == engine.state.max_epochs
        if not ends and self._is_requested(engine):
            self._exit(engine)

    def _is_requested(self, engine: SupervisedTrainer, later: bool = False) -> bool:
        """Whether any process was asked to stop; `later`: a GPU's sum is read in the next call."""
        own = stopping.is_requested()
        if process_count() == 1:
            return own
        added = sum_over_processes(torch.full((), float(own), device=engine.state.device))
        number, wait_for_arrival = start_copy_to_host(added)
        if later and wait_for_arrival is not None:
            (number, wait_for_arrival), self.arriving = self.arriving, (number, wait_for_arrival)
        if wait_for_arrival is not None:
            wait_for_arrival()
        return bool(number)

    def _stop(self, engine: SupervisedTrainer) -> None:
        stopping.ignore_sigterm()
        engine.fire_event(Events.TERMINATE)  # for handlers that still have a loss to check or write
        self.run_state.save(engine, within_epoch=True)
        self._exit(engine)

    def _exit(self, engine: SupervisedTrainer) -> None:
        stopping.ignore_sigterm()
        self.run_state.wait_until_written()
        wait_for_all()  # torchrun ends the others when one has ended
        for ending in (engine, self.validator):
            if ending is not None:
                ending.logger.disabled = True  # it would report the exit as an error
        stopping.exit_saved()
