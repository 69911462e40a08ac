"""Suspected label errors of a report: parts in which networks are confident against the label, with pictures."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from bundle.analysis.evaluation import Evaluation
from bundle.analysis.label_suspects import (
    CONFIDENT,
    SMALLEST,
    Suspect,
    find_case_suspects,
    rank_suspects,
    tabulate_suspects,
)
from bundle.analysis.scored_scans import (
    Scans,
    ScoredFiles,
    find_case_files,
    read_case_channels,
    read_case_masks,
    region_masks,
)
from bundle.analysis.strict_json import to_strict_json
from bundle.drawing.part_slices import PartView, draw_part
from bundle.reporting.atlas import FEW
from bundle.reporting.examples import find_clearest_channel
from bundle.reporting.page import embed_png
from bundle.reporting.words import format_amount, format_share, plural
from scripts.parallel import map_in_processes

TABLE = "label_errors.csv"
SHOWN = 10
NOTHING = (
    "This needs probabilities next to the masks (--save_probabilities True of evaluate and crossval), or the masks of"
    " networks that were trained again (--repetitions): one mask does not say how sure it is."
)
TRAINED = "a network learns the errors of the labels it is trained on; use a cross-validation, or test patients."
UNKNOWN = (
    "Which of these patients a network was trained on is unknown; there, it has learned the errors of the labels and"
    " shows none. A cross-validation, in which each patient is segmented by a network that never saw them, is the right"
    " setting."
)


class Picture(NamedTuple):
    """A suspect as it is shown: what it is in words, and a data URI."""

    words: str
    source: str


class Suspects(NamedTuple):
    """The section of a page and the table of all; where nothing could be searched `setting` says why."""

    about: dict[str, Any] | None
    setting: str
    pictures: tuple[Picture, ...] = ()
    table: pd.DataFrame | None = None


def list_suspects(evaluation: Evaluation, scans: Scans) -> Suspects:
    """Search all cases that no network was trained on.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    roles = evaluation.roles
    trained = {*(roles or {}).get("training", ())}
    cases = evaluation.scores.drop_duplicates("case").set_index("case")["patient"]
    chosen = [case for case in evaluation.scored_cases if cases[case] not in trained]
    if not chosen:
        return Suspects(None, f"All of these patients were used for training: {TRAINED}")
    by_case: dict[str, list[ScoredFiles]] = {
        files.case: [files] for files in find_case_files(evaluation, scans, chosen)
    }
    for other, own in scans.repetitions:
        for files in find_case_files(other, own, [case for case in other.scored_cases if case in by_case]):
            by_case[files.case].append(files)
    if not any(len(files) > 1 or files[0].probability for files in by_case.values()):
        return Suspects(None, NOTHING)
    workers = 1 if len(by_case) < FEW else None
    jobs = list(by_case.values())
    found = rank_suspects(map_in_processes(find_case_suspects, jobs, workers, "searching labels", "case"))
    table = tabulate_suspects(found)
    about = {
        "confident": CONFIDENT,
        "smallest_ml": SMALLEST,
        "cases": len(by_case),
        "left_out": len({cases[case] for case in evaluation.scored_cases} & trained),
        "repetitions": 1 + len(scans.repetitions),
        "found": to_strict_json(table.to_dict("records")),
    }
    pictures = tuple(_picture(one, by_case[one.case][0], scans.datalist["channels"]) for one in found[:SHOWN])
    return Suspects(about, _setting(evaluation), pictures, table)


def describe_suspect(one: Suspect) -> str:
    """A suspect in one line."""
    what = "in the mask, not in the label" if one.kind == "added" else "in the label, not in the mask"
    repeated = f", in {one.agree} of {one.of} repetitions" if one.of > 1 else ""
    return (
        f"{one.case}: {one.region} {what}, {format_amount(one.ml)} ml, confidence {format_share(one.confidence)}"
        f"{repeated}, axial slice {one.slice[0]} of {one.slice[1]}"
    )


def _setting(evaluation: Evaluation) -> str:
    """How far these patients are new to the networks."""
    roles = evaluation.roles
    if roles is None:
        return UNKNOWN
    said = []
    if "folds" in str(evaluation.record.get("part")):
        said.append("Each patient was segmented by a network that was trained without them.")
    else:
        if roles["test"]:
            said.append(f"{plural(len(roles['test']), 'patient')} took no part in training.")
        if roles["validation"]:
            said.append(f"{plural(len(roles['validation']), 'patient')} only selected the checkpoint.")
    if trained := roles["training"]:
        said.append(f"{plural(len(trained), 'patient')} used for training are left out: {TRAINED}")
    return " ".join(said)


def _picture(one: Suspect, files: ScoredFiles, names: Sequence[str]) -> Picture:
    masks = read_case_masks(files)
    truth, prediction = region_masks(files, masks, one.region)
    channels = zip(read_case_channels(files, masks.shape), names, strict=True)
    wrong = prediction & ~truth if one.kind == "added" else truth & ~prediction
    scan, channel = find_clearest_channel(channels, masks.turn, wrong)
    view = PartView(scan, truth, prediction, one.box, one.centre[2], masks.spacing)
    drawn = draw_part(view, f"axial {one.slice[0]}/{one.slice[1]}")
    return Picture(f"{describe_suspect(one)}; shown on {channel}", embed_png(drawn))
