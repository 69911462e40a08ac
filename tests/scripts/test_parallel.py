"""Tests of `scripts/parallel.py`."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.made import ROOT

PROGRAM = """\
import pathlib, time
from scripts.errors import install_excepthook
from scripts.parallel import map_in_processes
from scripts.stopping import catch_signals, set_how_to_continue

def work(path):
    pathlib.Path(path).touch()
    time.sleep(60)

install_excepthook()
catch_signals()
set_how_to_continue("the same command continues")
map_in_processes(work, ["one", "two", "three"], workers=2, desc="working", unit="item")
"""


@pytest.mark.parametrize("to_all", [True, False])
@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [
        (signal.SIGINT, 130, "Interrupted; the same command continues."),
        (signal.SIGTERM, 143, "Stopped by SIGTERM; the same command continues."),
    ],
)
def test_signal_ends_all_processes_at_once(tmp_path, number, code, sentence, to_all):
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    (os.killpg if to_all else os.kill)(started.pid, number)
    said = started.communicate(timeout=10)[1]
    assert started.returncode == code, said
    assert said.splitlines()[-1] == sentence
    # a signal may meet Python in a destructor, such as that of a progress bar, of which it prints "Exception ignored"
    assert "Traceback" not in said.partition("Exception ignored in")[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)
