"""Work on many items in several processes of one machine, with a progress bar."""

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context
from typing import TypeVar

from scripts import distributed
from scripts.errors import InputError
from scripts.progress import progress_bar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    call: Callable[[Item], Result], items: Sequence[Item], workers: int | None, desc: str, unit: str
) -> list[Result]:
    """The result of each item, in the order of the items.

    Args:
        call: a function at the top level of a module, or a partial of one.
        items: small enough to send to a process.
        workers: processes; None: one per core, divided among the processes of torchrun. One worker is this process.
        desc: of the progress bar, shown by the first process.
        unit: of the progress bar.

    Raises:
        InputError: `workers` is not a number of processes, or a process was killed.
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InputError(f"workers is {workers}: give a whole number of processes, 1 or more.")
    workers = min(workers or max(1, available_cores() // distributed.local_world_size()), len(items))

    show = bool(items) and distributed.is_first_process()
    shown = partial(progress_bar, show=show, leave=True, desc=desc, unit=unit, total=len(items))
    if workers <= 1:
        return [call(item) for item in shown(items)]
    context = get_context(distributed.worker_start_method())
    pool = ProcessPoolExecutor(workers, context, initializer=_ignore_signals)
    waiting = {pool.submit(call, item): number for number, item in enumerate(items)}
    results = {}
    try:
        for done in shown(as_completed(waiting)):
            results[waiting[done]] = done.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"a process was killed, most likely out of memory: use fewer than {workers} workers; what is done is kept."
        ) from error
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C or SIGTERM: running items are dropped as well
        for child in active_children():
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)  # items that have not started are dropped, running ones are finished
    return [results[number] for number in range(len(items))]


def _ignore_signals() -> None:
    """Leave Ctrl-C and SIGTERM to the parent process, which kills its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to a group, it would look like a process killed for memory
