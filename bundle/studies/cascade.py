"""The first stage of a cascade, run on scans that it has no mask of, before the second stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.studies.averaging import segment_with_several
from bundle.studies.crossval import RECORD
from bundle.studies.members import find_configurations
from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.network.ensemble import read_run_settings
from scripts.network.weights import MODEL

SETTING = "first_stage_masks"
MASKS = ".first_stage"  # in the folder that is written to


def find_first_stage(configurations: Sequence[Sequence[Path]]) -> Path | None:
    """The cross-validation that runs name as their first stage; None if they have none.

    Raises:
        InputError: they name several.
    """
    named = {read_run_settings(run).get("first_stage") for runs in configurations for run in runs} - {None}
    if len(named) > 1:
        raise InputError(f"the runs have different first stages, {' and '.join(sorted(named))}: give those of one.")
    return Path(named.pop()) if named else None


def segment_first_stage(first: Path, settings: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Segment new scans by all folds of a first stage; the setting of the second stage that names the masks.

    Args:
        first: the folder of its cross-validation.
        settings: of configs/inference.yaml, with `input`.
        out: gets the masks in a folder, which a second call uses.
    """
    folder = _segment(first, settings, out)
    return {SETTING: [folder.as_posix()]}


def segment_unseen(
    first: Path,
    settings: Mapping[str, Any],
    out: Path,
    datalist: Path,
    dataset_dir: Path,
    part: str | None,
    fold: int | None,
) -> dict[str, Any]:
    """Segment those cases of a data list by all folds of a first stage that took no part in its training.

    The others have the masks of its cross-validation, each by the network that never saw the patient. Returns the
    setting of the second stage that names the masks; empty if nothing was to be segmented.

    Raises:
        InputError: the list is not that of the first stage, and has a patient of it.
    """
    content, record = lists.read_datalist(datalist), read_mapping(first / RECORD)
    entries = lists.select_cases(content, dataset_dir, lists.part_to_evaluate(content, part), fold)
    folders = []
    if lists.datalist_hash(content) == record["sha256"]:
        unseen = [entry for entry in entries if "fold" not in entry]
        folders.append((first / "masks").as_posix())
    else:
        own = {entry["patient"] for entry in lists.read_datalist(record["datalist"])["training"] if "fold" in entry}
        if seen := sorted(own & {entry["patient"] for entry in entries}):
            raise InputError(
                f"{datalist} is not the data list of the first stage {first}, which was trained on patient {seen[0]}:"
                " evaluate with the list of the training, or new patients."
            )
        unseen = entries
    if not unseen:
        return {}
    return {SETTING: [_segment(first, settings, out, unseen).as_posix(), *folders]}


def _segment(
    first: Path, settings: Mapping[str, Any], out: Path, entries: Sequence[Mapping[str, Any]] | None = None
) -> Path:
    """The folder of the masks, named by the weights: masks of others are another setting of the second stage."""
    configurations = find_configurations([first])
    weights = lists.hash_of_files([run / MODEL for runs in configurations for run in runs])
    folder = (out / MASKS / weights[:12]).resolve()
    print(f"first stage: {first}", flush=True)
    segment_with_several(configurations, settings, folder, entries, resume=True)
    return folder
