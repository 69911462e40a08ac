"""Exits on Ctrl-C and on SIGTERM, which schedulers send before they kill a process.

Both end a process at once, with one sentence. Work that can be saved, such as a training, defers SIGTERM: it checks
`is_requested` after each step, saves, and calls `exit_saved`.
"""

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from scripts import distributed
from scripts.errors import EXIT_REQUEUE, EXIT_TERMINATED

ECHO = 5.0  # seconds within which a second SIGTERM repeats the first: torchrun forwards what a scheduler sends to all


class _State:
    how_to_continue = ""
    saved = False  # whether `how_to_continue` loses nothing
    requeue = False
    deferred = False
    requested_at: float | None = None


def catch_signals(requeue: bool = False) -> None:
    """From here on, Ctrl-C and SIGTERM end this process with a sentence; other handlers stay in place.

    Args:
        requeue: whether SIGTERM, once results are saved, gives exit code 75, which asks a scheduler to start it again.
    """
    _State.requeue = requeue
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def set_how_to_continue(sentence: str, saved: bool = True) -> None:
    """Set the advice in the message when a signal ends this process, such as `resume with --resume runs/first`.

    Args:
        sentence: without a full stop; the message starts with `Interrupted;` or `Stopped by SIGTERM;`.
        saved: whether a restarted job continues from saved results.
    """
    _State.how_to_continue, _State.saved = sentence, saved


def defer_sigterm(deferred: bool) -> None:
    """Choose whether SIGTERM only sets `is_requested`; a second one, some seconds later, ends the process anyway."""
    _State.deferred = deferred


def is_requested() -> bool:
    """Whether SIGTERM has come."""
    return _State.requested_at is not None


def exit_saved() -> NoReturn:
    """End the process after SIGTERM with exit code 143, or 75 if it is to be requeued."""
    _say_stopped()
    sys.exit(_exit_code())


def ignore_sigterm() -> None:
    """Ignore SIGTERM from here on, while the process saves and ends."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def leave_signals_to_the_parent(_: int = 0) -> None:
    """Make a loader process (as its `worker_init_fn`) obey a SIGTERM of its parent only, not one sent to the group.

    The exit of a loader process would end its parent in the middle of a step.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait_for_the_parent() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait_for_the_parent, daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"Interrupted{_how()}.")


def _terminate(number: int, frame: FrameType | None) -> None:
    if _State.requested_at is None:
        _State.requested_at = time.monotonic()
    if not _State.deferred:
        _exit_at_once(_exit_code())
    if time.monotonic() - _State.requested_at > ECHO:
        _exit_at_once(EXIT_TERMINATED)


def _exit_at_once(code: int) -> NoReturn:
    ignore_sigterm()
    atexit.register(_say_stopped)  # not now: the signal may have interrupted a print
    sys.exit(code)


def _exit_code() -> int:
    return EXIT_REQUEUE if _State.requeue and _State.saved else EXIT_TERMINATED


def _say_stopped() -> None:
    if distributed.is_first_process():
        print(f"Stopped by SIGTERM{_how()}.", file=sys.stderr)


def _how() -> str:
    return f"; {_State.how_to_continue}" if _State.how_to_continue else ""
