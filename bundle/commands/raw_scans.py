"""Raw scans of `segment --raw`: its options, and the answer for each case after its scans are prepared."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bundle.dicom.cases import AnsweredStudy, refuse_case
from bundle.raw.brain_mask import METHODS
from bundle.raw.options import RawOptions
from bundle.raw.patient import PreparedPatient, prepare_patient
from scripts.errors import InputError
from scripts.inference.mask_saver import mask_path
from scripts.inference.scans import find_input_scans
from scripts.inference.worker_process import WorkerProcess

Prepare = Callable[[str, str | list[str]], PreparedPatient]  # from the name of a case and its image


def read_raw_options(raw: bool, brain: str | None, brain_mask: str | None, identify: bool) -> RawOptions | None:
    """The options of --raw; None without it.

    Raises:
        InputError: options contradict each other, or what they need is not installed.
    """
    if not raw:
        if given := [name for name, value in (("--brain", brain), ("--brain_mask", brain_mask)) if value]:
            raise InputError(f"{given[0]} is for raw scans: add --raw, or leave it out.")
        return None
    if brain and brain_mask:
        raise InputError("--brain and --brain_mask both say where the brain mask is from: give one of them.")
    if brain and brain not in METHODS:
        raise InputError(f"--brain is {brain!r}: expected {', '.join(METHODS)}.")
    if "RANK" in os.environ:
        raise InputError("--raw runs in one process: start it without torchrun.")
    options = RawOptions(brain or "template", brain_mask, identify)
    options.require()
    return options


def preparation(
    options: RawOptions, worker: WorkerProcess, out: Path, show: Callable[[str], object], cases: int
) -> Prepare:
    """The function that prepares the scans of a case.

    Raises:
        InputError: one brain mask is given for several cases.
    """
    if options.mask and "{case}" not in options.mask and cases > 1:
        raise InputError(
            f"--brain_mask {options.mask} is one file, and there are {cases} cases: put {{case}} in place of the"
            ' name, as in --brain_mask "masks/{case}.nii.gz".'
        )

    def prepare(case: str, image: str | list[str]) -> PreparedPatient:
        names = worker.settings["channels"]
        made = prepare_patient(case, image, names, out / case, options, lambda step: show(f"{case}: {step}"))
        show(f"{case}: network")
        return made

    return prepare


def find_raw_scans(
    worker: WorkerProcess, source: Path, dataset_dir: Path | None, out: Path, resume: bool
) -> list[dict]:
    """The cases of an input of files, as `find_input_scans` gives them.

    Raises:
        InputError: there is none, or masks are there already and `resume` is off.
    """
    settings = worker.settings
    cases = find_input_scans(source, settings["channels"], settings["channel_files"], dataset_dir or ".")
    there = [entry for entry in cases if mask_path(out, entry["case"], ["raw.nii"]).exists()]
    if there and not resume:  # before the first case is prepared
        raise InputError(
            f"{out} already holds masks of {len(there)} of {len(cases)} cases: choose another folder, or skip them with"
            " --resume."
        )
    return cases


def answer_raw_scans(
    worker: WorkerProcess, cases: list[dict[str, Any]], prepare: Prepare, resume: bool
) -> Iterator[AnsweredStudy]:
    """Prepare and segment cases one after the other."""
    for entry in cases:
        try:
            if "refused" in entry:
                raise InputError(entry["refused"])
            made = prepare(entry["case"], entry["image"])
        except InputError as error:
            yield AnsweredStudy(refuse_case(entry["case"], error), None)
            continue
        _, reply = worker.ask({"cases": [{"case": entry["case"], "image": made.image}], "resume": resume})
        reply = {**reply, "checks": [*made.checks, *reply["checks"]], "preparation": made.record}
        yield AnsweredStudy(reply, None)


def list_licences(answers: list[Mapping[str, Any]]) -> dict[str, str]:
    """The terms of what prepared the scans, by name."""
    found: dict[str, str] = {}
    for answer in answers:
        found |= answer.get("preparation", {}).get("licences", {})
    return found
