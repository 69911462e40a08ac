"""How many faults of scans the checks find, and how many sound scans they note or refuse."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bundle.benchmarks.scan_faults import FAULTS, ScanVoxels
from bundle.benchmarks.timing import BenchmarkResult, Timing
from bundle.cohort.phantom_anatomy import CHANNELS, KINDS, make_patient
from scripts.data.case_record import CaseRecord
from scripts.data.check_results import NOTE, REFUSE, ScanCheck
from scripts.data.datalist import read_datalist, select_cases
from scripts.data.loading import LoadImageChannelsd
from scripts.data.profile import Profile, make_profile
from scripts.data.scan_checks import ScanRefused, check_scan, summarise_channels
from scripts.data.scan_numbers import ScanNumbers, measure_scan
from scripts.parallel import map_in_processes
from scripts.progress import progress_bar

SOUND = "sound"
SIZE, SPACING = 64, 3.0  # voxels and mm of phantoms
TRAINING, TESTED = 1, 2  # seeds of the phantoms that make the profile, and of those that are checked


class CheckedFault(NamedTuple):
    """The result of the checks of one scan: the fault, its status, and which checks objected."""

    fault: str
    status: str
    objections: list[str]


def measure_checks(
    phantoms: int = 60, training: int = 100, datalist: Path | None = None, dataset_dir: Path | None = None
) -> BenchmarkResult:
    """Make every fault of every scan, and count what the checks find.

    Phantoms are compared with the profile of other phantoms, real scans with that of the list's other patients.

    Args:
        phantoms: how many are checked.
        training: how many others make their profile.
        datalist: of scans to check in place of phantoms.
        dataset_dir: the folder that its paths start from; by default the one that holds the list.
    """
    if datalist is None:
        made = map_in_processes(partial(_measure_phantom, TRAINING), range(training), None, "measuring", "scan")
        profile = make_profile(CHANNELS, made)
        found = map_in_processes(partial(_check_phantom, profile), range(phantoms), None, "checking", "scan")
        title = f"{phantoms} phantoms, against the profile of {training} others"
    else:
        scans = _read_scans(datalist, dataset_dir or datalist.parent)
        found = [_check_scan(*one) for one in progress_bar(_with_others(scans), total=len(scans), desc="checking")]
        title = f"{len(scans)} scans of {datalist.name}, each against the profile of the other patients"
    counted = count_found([one for several in found for one in several])
    notes = ["found: the share of faulty scans that are refused or noted; of sound scans, the share of false alarms."]
    return BenchmarkResult("checks", title, [_as_row(own) for own in counted], {"faults": counted}, notes)


def count_found(found: Sequence[CheckedFault]) -> list[dict[str, Any]]:
    """By fault, sound scans first: `n`, `refused`, `noted`, and how often each check objected."""
    by_fault: dict[str, list[CheckedFault]] = defaultdict(list)
    for one in found:
        by_fault[one.fault].append(one)
    counted = []
    for fault, own in by_fault.items():
        statuses = Counter(one.status for one in own)
        objections = Counter(name for one in own for name in one.objections)
        about = {"n": len(own), "refused": statuses[REFUSE], "noted": statuses[NOTE]}
        counted.append({"fault": fault, **about, "checks": dict(objections.most_common())})
    return counted


def _as_row(own: Mapping[str, Any]) -> Timing:
    words = f"{own['fault']}: refused {own['refused']}, noted {own['noted']} of {own['n']}"
    first = ", ".join(f"{name} {count}" for name, count in [*own["checks"].items()][:3])
    share = (own["refused"] + own["noted"]) / own["n"]
    return Timing(f"{words} ({first})" if first else words, [share], "")


def _measure_phantom(seed: int, number: int) -> ScanNumbers:
    scan = _make_phantom(seed, number)
    images = np.stack([*scan.channels.values()])
    channels = summarise_channels(images, scan.affine, CHANNELS, _files(CHANNELS), CaseRecord(""))
    return measure_scan(images, channels)


def _check_phantom(profile: Profile, number: int) -> list[CheckedFault]:
    return _check_scan(_make_phantom(TESTED, number), _make_phantom(TESTED, number + 1), profile, number)


def _make_phantom(seed: int, number: int) -> ScanVoxels:
    rng = np.random.default_rng([seed, number])
    images = make_patient(rng, SIZE, SPACING, 3, KINDS[number % len(KINDS)])[0]
    return ScanVoxels(dict(zip(CHANNELS, images, strict=True)), np.diag([-SPACING, -SPACING, SPACING, 1.0]))


def _check_scan(scan: ScanVoxels, other: ScanVoxels | None, profile: Profile | None, seed: int) -> list[CheckedFault]:
    """The results for a scan as it is, and with each fault that it can show."""
    found = [_check_fault(SOUND, scan, profile)]
    for name, make in FAULTS.items():
        faulty = make(scan, other, np.random.default_rng(seed))
        if faulty is not None:
            found.append(_check_fault(name, faulty, profile))
    return found


def _check_fault(fault: str, scan: ScanVoxels, profile: Profile | None) -> CheckedFault:
    names = [*scan.channels]
    images = np.stack([voxels.astype(np.float32) for voxels in scan.channels.values()])
    try:
        checks: Sequence[ScanCheck] = check_scan(images, scan.affine, names, _files(names), (), profile)
    except ScanRefused as refused:
        checks = refused.checks
    objections = [check for check in checks if check.status in (NOTE, REFUSE)]
    status = next((level for level in (REFUSE, NOTE) if level in {check.status for check in objections}), "ok")
    return CheckedFault(fault, status, [check.name for check in objections])


def _read_scans(datalist: Path, dataset_dir: Path) -> list[tuple[str, ScanVoxels]]:
    """The patient and the scan of each labelled volume of a list."""
    content = read_datalist(datalist)
    loader = LoadImageChannelsd("image", content["channels"], axes=3)
    scans = []
    for entry in select_cases(content, dataset_dir, "labelled"):
        image, _ = loader.load_image(entry["image"])
        channels = dict(zip(loader.channels, image.numpy(force=True), strict=True))
        scans.append((entry["patient"], ScanVoxels(channels, np.asarray(image.affine))))
    return scans


def _with_others(
    scans: Sequence[tuple[str, ScanVoxels]],
) -> Iterator[tuple[ScanVoxels, ScanVoxels | None, Profile | None, int]]:
    """Each scan, one of another patient, the profile of all other patients, and its number."""
    measured = []
    for _, scan in scans:
        names, images = [*scan.channels], np.stack([*scan.channels.values()])
        channels = summarise_channels(images, scan.affine, names, _files(names), CaseRecord(""))
        measured.append(measure_scan(images, channels) if len(channels) == len(names) else None)
    for place, (patient, scan) in enumerate(scans):
        others = [number for number, (name, _) in enumerate(scans) if name != patient]
        known = [own for number in others if (own := measured[number]) is not None]
        profile = make_profile([*scan.channels], known) if known else None
        yield scan, scans[others[0]][1] if others else None, profile, place


def _files(names: Sequence[str]) -> list[Path]:
    return [Path(f"{name}.nii.gz") for name in names]
