"""Raw scans of one patient as files that a network takes; what is done already is not done again.

In the folder `prepared` of a case: a file per channel, the brain mask, a picture of each step, and `preparation.json`,
written last, which knows what they were made of.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bundle.raw.brain_mask import MaskSource
from bundle.raw.options import RawOptions
from bundle.raw.pictures import draw_steps
from bundle.raw.state import PREPARED, STRIPPED, measure_state
from bundle.raw.steps import PreparedChannels, prepare_channels
from scripts.data.check_results import OK, ScanCheck
from scripts.data.datalist import file_hash
from scripts.data.images import GridImage, read_image, write_like
from scripts.errors import InputError
from scripts.files import atomic_write, remove_leftovers, write_json

FOLDER, RECORD = "prepared", "preparation.json"
VERSION = 1  # raised when the steps change
NOT_NEEDED = "The scan is prepared already: --raw was not needed, and changed nothing."


class PreparedPatient(NamedTuple):
    """What the network gets of a patient.

    Attributes:
        image: a file per channel, or one with all.
        reference: number of the channel whose grid they have.
        checks: of the steps, as dictionaries.
        record: what answer.json holds under `preparation`.
    """

    image: str | list[str]
    reference: int
    checks: list[dict[str, Any]]
    record: dict[str, Any]


def prepare_patient(
    case: str,
    image: str | Sequence[str],
    names: Sequence[str],
    folder: Path,
    options: RawOptions,
    show: Callable[[str], object],
) -> PreparedPatient:
    """Prepare the scans of one patient, unless it is done.

    Args:
        case: its name.
        image: a file per channel, or one with all.
        names: of the channels.
        folder: of the answer; gets the folder `prepared`.
        options: how.
        show: gets the name of a step when it begins.

    Raises:
        InputError: a file cannot be read or written; of it, ScanRefused: a step is refused.
    """
    files = [Path(image)] * len(names) if isinstance(image, str) else [Path(file) for file in image]
    mask_file, folder = options.mask_of(case), folder / FOLDER
    remove_leftovers(folder)
    origin = {
        "version": VERSION,
        "channels": [*names],
        "images": [file_hash(file) if file.is_file() else None for file in files],
        "brain": file_hash(mask_file) if mask_file else options.method,
        "identify": options.identify,
    }
    if known := _read_finished(folder, origin):
        return known
    scans = _read_channels(image, files, names)
    state = measure_state(scans, files)
    if state == PREPARED:
        about = ScanCheck("preparation", OK, NOT_NEEDED).as_mapping()
        given = image if isinstance(image, str) else [*image]
        return PreparedPatient(given, 0, [about], {"state": state, "licences": {}, "pictures": []})
    made = prepare_channels(scans, MaskSource(state == STRIPPED, options.method, mask_file), show)
    show("writing")
    return _write(folder, made, files[names.index(made.reference)], scans[made.reference], state, origin, options)


def _read_channels(image: str | Sequence[str], files: Sequence[Path], names: Sequence[str]) -> dict[str, GridImage]:
    """The channels by name, each on its own grid."""
    stored = [read_image(file, "image") for file in ([files[0]] if isinstance(image, str) else files)]
    for file, one in zip(files, stored, strict=False):
        if one.affine is None:
            raise InputError(f"{file} has no place in space: --raw takes NIfTI, NRRD, MetaImage and DICOM.")
    if isinstance(image, str) and len(names) > 1:
        whole = stored[0]
        if whole.voxels.ndim != 4 or whole.voxels.shape[-1] != len(names):
            raise InputError(f"{image} does not hold the channels {', '.join(names)}: give a file with all, in order.")
        stored = [whole._replace(voxels=voxels) for voxels in np.moveaxis(whole.voxels, -1, 0)]
    for file, one in zip(files, stored, strict=True):
        if one.voxels.ndim != 3:
            raise InputError(f"{file} has {one.voxels.ndim} axes: --raw takes one volume [H, W, D] per channel.")
    return dict(zip(names, stored, strict=True))


def _write(
    folder: Path,
    made: PreparedChannels,
    like: Path,
    reference: GridImage,
    state: str,
    origin: dict[str, Any],
    options: RawOptions,
) -> PreparedPatient:
    paths = [folder / f"channel-{place}.nii.gz" for place in range(len(made.channels))]
    for path, voxels in zip(paths, made.channels.values(), strict=True):
        write_like(path, voxels, like)
    write_like(folder / "brain-mask.nii.gz", made.brain.astype(np.uint8), like)
    assert reference.affine is not None
    pictures = []
    for name, (words, png) in draw_steps(made, reference.affine, options.identify).items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(png)
        pictures.append({"file": f"{FOLDER}/{name}", "words": words})
    checks = [check.as_mapping() for check in made.checks]
    record = {"state": state, **made.measured, "pictures": pictures}
    written = [*paths, *(folder / Path(picture["file"]).name for picture in pictures)]
    hashes = {path.name: file_hash(path) for path in written}
    place = [*made.channels].index(made.reference)
    content = {"origin": origin, "reference": place, "checks": checks, "record": record, "files": hashes}
    write_json(folder / RECORD, content)
    return PreparedPatient([str(path) for path in paths], place, checks, record)


def _read_finished(folder: Path, origin: dict[str, Any]) -> PreparedPatient | None:
    """What was prepared before, if it was made of the same files in the same way and is unchanged."""
    try:
        known = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        unchanged = all(file_hash(folder / name) == sha256 for name, sha256 in known["files"].items())
        if known["origin"] != origin or not unchanged:
            return None
        image = [str(folder / f"channel-{place}.nii.gz") for place in range(len(origin["channels"]))]
        return PreparedPatient(image, known["reference"], known["checks"], known["record"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
