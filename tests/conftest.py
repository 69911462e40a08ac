"""Fixtures of several folders: synthetic patients, configs read as MONAI reads them, real scans where present."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from monai.bundle import ConfigParser, run

from bundle.commands.export import export
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from tests.made import ROOT, at_repository_root

torch.set_num_threads(1)  # small tensors: more threads only wait for each other


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Packages are trusted in a folder of the tests, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _configs_read_once() -> Iterator[None]:
    """MONAI reads a config file anew for each macro, which takes most of the time of a small test; here once."""
    read, known = ConfigParser.load_config_file, {}

    def load_config_file(cls: type[ConfigParser], filepath: str | os.PathLike, **kwargs: Any) -> dict:
        path = Path(filepath)
        if kwargs or not path.is_file():
            return read(filepath, **kwargs)
        key = path.absolute(), path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size
        if key not in known:
            known[key] = pickle.dumps(read(filepath))
        return pickle.loads(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigParser, "load_config_file", classmethod(load_config_file))
        yield


@pytest.fixture(autouse=True)
def _enabled_loggers() -> None:
    """Other programs that ran in this process, such as import-linter, may have disabled the project's loggers."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith(("scripts", "bundle")) and isinstance(logger, logging.Logger):
            logger.disabled = False


class Cohort(NamedTuple):
    """Synthetic patients and their data list."""

    dataset_dir: Path
    datalist: Path


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Four labelled patients in four folds, one without a label: 32 voxels of 6 mm a side, LPS, four channels."""
    made = Cohort(tmp_path_factory.mktemp("cohort") / "patients", tmp_path_factory.mktemp("list") / "datalist.json")
    phantom(str(made.dataset_dir), cases=4, size=32, spacing=6.0, unlabelled=1)
    prepare(str(made.dataset_dir), out=str(made.datalist), folds=4, allow_unlabelled=True, picture=False, workers=1)
    return made


@pytest.fixture(scope="session")
def package(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a network that was trained for seconds, on scans resampled from 6 mm to 5."""
    folder = tmp_path_factory.mktemp("package")
    settings = {
        "datalist": str(cohort.datalist),
        "dataset_dir": str(cohort.dataset_dir),
        "run_dir": str(folder / "run"),
        "device": "cpu",
        "spacing": [5.0, 5.0, 5.0],
        "patch_size": [16, 16, 16],
        "filters": [4, 8, 8],
        "max_epochs": 2,
        "steps_per_epoch": 20,
        "learning_rate": 0.01,
        "ema_decay": 0.5,
    }
    with at_repository_root():
        run("training", config_file=["configs/train.yaml", "configs/tasks/phantom.yaml"], **settings)
        export(folder / "run", out=folder / "dist")
    (made,) = (path for path in (folder / "dist").iterdir() if path.is_dir())
    return made


@pytest.fixture
def at_root() -> Iterator[Path]:
    """`at_repository_root` during the test; gives the root."""
    with at_repository_root():
        yield ROOT


@pytest.fixture
def read_config(at_root: Path) -> Callable[..., ConfigParser]:
    """Reads config files and settings as `python -m monai.bundle run --config_file FILES --setting VALUE` does."""

    def read(*files: str, **settings: Any) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config(list(files))
        parser.update(settings)
        parser.parse()
        return parser

    return read


@pytest.fixture
def small_train(
    read_config: Callable[..., ConfigParser], cohort: Cohort, tmp_path: Path
) -> Callable[..., ConfigParser]:
    """train.yaml on the cohort, with a network and patches that a CPU does in seconds."""

    def read(*overlays: str, **settings: Any) -> ConfigParser:
        small = {
            "datalist": str(cohort.datalist),
            "dataset_dir": str(cohort.dataset_dir),
            "run_dir": str(tmp_path / "run"),
            "device": "cpu",
            "patch_size": [16, 16, 16],
            "filters": [4, 8, 8],
            "max_epochs": 2,
            "steps_per_epoch": 2,
        }
        return read_config("configs/train.yaml", "configs/tasks/phantom.yaml", *overlays, **{**small, **settings})

    return read


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """`with full_disk(bytes):` makes the operating system refuse to write any file beyond that size."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def in_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], Any]], list[Any]]:
    """Calls a function with rank 0 and 1 in two processes of one group, as torchrun would; gives what they return."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")

    def run(function: Callable[[int], Any]) -> list[Any]:
        def join(rank: int) -> None:
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{tmp_path / 'group'}", rank=rank, world_size=2
            )
            returned.put((rank, function(rank)))
            torch.distributed.barrier()  # neither leaves while the other still asks
            torch.distributed.destroy_process_group()

        context = multiprocessing.get_context("fork")  # the tests' own functions need not be importable
        returned = context.SimpleQueue()
        processes = [context.Process(target=join, args=(rank,)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=60)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        assert codes == [0, 0]
        return [value for _, value in sorted(returned.get() for _ in processes)]

    return run


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """The folder of a real data set next to the repository; skips the test where it is absent."""

    def find(name: str) -> Path:
        folder = ROOT.parent / "shared" / "data" / name
        if not folder.is_dir():
            pytest.skip(f"the real scans of {name} are not at {folder}")
        return folder

    return find
