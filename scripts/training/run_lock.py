"""The lock on a run's folder: one process trains in it; the operating system releases the lock when it ends."""

import datetime
import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scripts.errors import InputError
from scripts.files import is_alive, write_json

LOCK, HOLDER = ".lock", ".lock.json"  # filelock empties the first, so the second names the holder
PATIENCE = 10  # seconds: loader processes of a killed training hold its lock until they notice


def lock_folder(folder: Path) -> FileLock:
    """Lock a run's folder until this process ends or releases the lock; creates the folder if needed.

    Raises:
        InputError: another process holds the lock; names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One process may open its run again, and any of its threads may release it, also by collecting garbage
        lock = FileLock(folder / LOCK, is_singleton=True, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            lock.acquire(timeout=0 if is_alive(**_read_holder(folder)) else PATIENCE)
    except Timeout as error:
        holder = _read_holder(folder)
        who = "process {pid} of {host}, since {since}".format_map(holder) if holder else "another process"
        raise InputError(
            f"{folder} is in use by {who}: only one process can train a run; wait until it ends, or end it."
        ) from error
    except NotImplementedError:  # a file system without locks
        return lock
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error}): choose another folder.") from error
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    write_json(folder / HOLDER, {"pid": os.getpid(), "host": platform.node(), "since": now})
    return lock


def _read_holder(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return json.loads((folder / HOLDER).read_text(encoding="utf-8"))
    return {}
