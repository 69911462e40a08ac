"""The lock of a run's folder."""

from functools import partial
from threading import Thread

from scripts.training.run_lock import lock_folder


def test_one_process_may_open_its_run_again(tmp_path):
    first, again = lock_folder(tmp_path), lock_folder(tmp_path)
    assert first is again


def test_any_thread_may_release_the_lock(tmp_path):
    lock = lock_folder(tmp_path)
    thread = Thread(target=partial(lock.release, force=True))
    thread.start()
    thread.join()
    assert not lock.is_locked
