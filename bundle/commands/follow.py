"""The `follow` command: one patient over time, each time point segmented, registered to the first and compared."""

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column

from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.raw_scans import list_licences, preparation, read_raw_options
from bundle.commands.segment import MASKS_ALONE, read_sources, split_channels, why_masks_alone
from bundle.commands.shared import Outcome, print_lines, score_table
from bundle.commands.time_points import add_time_point
from bundle.commands.workflows import parse_settings
from bundle.followup.changes import Course
from bundle.followup.pictures import draw_lesions
from bundle.followup.record import describe_follow_up
from bundle.followup.time_points import Timeline, find_time_points
from bundle.followup.views import FollowUp
from bundle.packaging.provenance import describe_network
from bundle.reporting.answers import AnswerWriter
from bundle.reporting.follow_page import list_findings, write_follow_page, write_follow_table
from scripts import stopping
from scripts.errors import EXIT_SOME_FAILED, InputError
from scripts.files import make_folder, write_json
from scripts.inference.worker_process import WorkerProcess
from scripts.progress import progress_bar


@check_arguments
def follow(
    source: Path,
    patient: Path,
    *,
    out: Path,
    dates: Optional[Path] = None,
    operation: CommaList[str] = (),
    baseline: Optional[str] = None,
    same_patient: bool = False,
    repeat: bool = False,
    resume: bool = False,
    trust: bool = False,
    identify: bool = False,
    channels: CommaList[str] = (),
    raw: bool = False,
    brain: Optional[str] = None,
    brain_mask: Optional[str] = None,
    **settings: str,
) -> Outcome:
    """Compare the time points of one patient: OUT/follow.html, follow.json and follow.csv (docs/follow.md).

    Each time point is segmented and checked as by `segment`, with its answer in OUT/day<days since the first>/. The
    others are registered to the first; lesions are matched, volumes and diameters compared, and the size thresholds
    listed that a change meets. It is not a diagnosis, and there is no response category. A time point that is refused,
    or that does not show the same brain, is not compared. No date is written.

    Examples:
        python -m bundle follow dist/brats2021_segmentation-0.1.0 /data/patient --out followed
        python -m bundle follow dist/brats2021_segmentation-0.1.0 /data/patient --out followed --operation 2019-04-02
        python -m bundle follow runs/first /data/patient --out followed --dates dates.csv --operation none
        python -m bundle follow runs/first /data/patient --out followed --resume

    Args:
        source: the folder of a run, or of a package that `python -m bundle export` wrote.
        patient: a folder with one folder per time point, named by its date (2019-03-21, 20190321) or day (day-030,
            week-04); or a folder of DICOM, whose studies are the time points.
        out: the folder to write to, outside of the patient's.
        dates: a table with the columns folder,date or folder,day, or JSON as {folder: date}.
        operation: the dates of operations, or none; or days, as in the names of the folders, or where these have dates,
            since the first time point (negative before it). Time points are compared with each other between
            operations, and never across one.
        baseline: the date or day of the time point that later ones are compared with, such as the first after
            radiotherapy; by default the first, and the first after each operation.
        same_patient: all time points are of one patient, for sure: compare also those whose brains seem to differ.
        repeat: segment each time point once more, turned and shifted, and state by how much volumes differ from that
            alone; takes twice the time.
        resume: keep what is finished in OUT, and segment what is new.
        trust: the package is trusted: its code and configs may run with your rights.
        identify: show scans that have more than the brain, whose faces might be recognised, on the pages.
        channels: of DICOM, the series of a channel where the rules find none or several: "T1c=7,T1=3"; of any input,
            "T2=none" where the scans lack a channel, if the network was trained for that.
        raw: the scans are as the scanner made them: prepare them first (docs/raw.md).
        brain: of raw scans, what makes the brain mask: template (the default), hd-bet or deepbet.
        brain_mask: of raw scans, the file of the brain mask, with {case} for the name in OUT, such as day000.
        settings: any setting of configs/inference.yaml, such as --overlap 0.25 or --device cpu.
    """
    if "RANK" in os.environ:
        raise InputError("follow runs in one process: start it without torchrun.")
    raw_options = read_raw_options(raw, brain, brain_mask, identify)
    sources = _find_sources(source, trust)
    if out.resolve().is_relative_to(patient.resolve()):
        raise InputError(f"--out {out} is in the folder of the patient: choose a folder outside of {patient}.")
    timeline = find_time_points(patient, dates)
    course = _read_course(operation, baseline, timeline)
    out = out.resolve()
    _refuse_other_days(out, timeline, resume)
    series, without = split_channels(channels)
    if series and not any(point.study for point in timeline.points):
        raise InputError(f"--channels is for DICOM, which {patient} does not hold: leave it out.")
    stopping.set_how_to_continue("continue with --resume")
    make_folder(out)  # before the network is loaded
    network = describe_network(sources)
    print(f"loading {network['name']} from {', '.join(map(str, sources))} ...", flush=True)
    with ExitStack() as closer:
        given = {"output_dir": str(out), **parse_settings(settings), **without}
        worker = closer.enter_context(closing(WorkerProcess(sources, given)))
        writer = AnswerWriter(out, network, identify, worker.settings)
        compared = FollowUp(worker.settings, course, identify, same_patient)
        bar = closer.enter_context(progress_bar(timeline.points, desc="following", unit="time point", leave=True))
        count = len(timeline.points)
        prepare = preparation(raw_options, worker, out, bar.set_postfix_str, count) if raw_options else None
        for point in bar:
            add_time_point(compared, point, worker, writer, series, prepare, repeat)
    record = describe_follow_up(compared, network)
    write_follow_page(out / "follow.html", record, draw_lesions(compared, record["lesions"]))
    write_follow_table(out / "follow.csv", record)
    write_json(out / "follow.json", record)
    terms = {**network["licences"], **list_licences([view.answer for view in compared.views])}
    _print_record(record, timeline.left_out, terms, out)
    return Outcome(lambda: record, EXIT_SOME_FAILED if compared.refused else 0)


def _find_sources(source: Path, trust: bool) -> list[Path]:
    """The package, or the runs of one configuration, that give answers."""
    from bundle.studies import cascade

    configurations = read_sources(source, (), trust)
    if kind := why_masks_alone(source, configurations):
        raise InputError(f"a follow-up needs answers: {MASKS_ALONE[kind].format(source=source)}")
    if cascade.find_first_stage(configurations):
        raise InputError(f"{source} needs a first stage, which a follow-up does not have: give a run without one.")
    return configurations[0] if configurations else [source]


def _read_course(operation: Sequence[str], baseline: str | None, timeline: Timeline) -> Course:
    """Operations and baseline in days since the first time point."""
    known = None if not operation else () if operation == ("none",) else operation
    days = None if known is None else tuple(sorted(timeline.find_day(text, "--operation") for text in known))
    course = Course(days, None if baseline is None else timeline.find_day(baseline, "--baseline"))
    course.require([point.day for point in timeline.points])
    return course


def _refuse_other_days(out: Path, timeline: Timeline, resume: bool) -> None:
    """Refuse a folder with a follow-up, unless it is continued, and one with time points of others."""
    there = sorted(path.name.removesuffix(".nii.gz") for path in out.glob("day*.nii.gz"))
    if there and not resume:
        raise InputError(f"{out} already holds masks of {len(there)} time points: choose another folder, or --resume.")
    if other := sorted({*there} - {point.case for point in timeline.points}):
        raise InputError(
            f"{out} holds {other[0]}, which is not a time point of this patient, or the first date has changed: choose"
            " another folder."
        )


def _print_record(record: dict[str, Any], left_out: Sequence[str], terms: dict[str, str], out: Path) -> None:
    console = Console()
    regions = [*record["regions"]]
    columns = [Column("day", justify="right"), Column("state", overflow="fold")]
    table = score_table("Follow-up: volume in ml, and its change since the baseline", *columns, *regions)
    for point in record["time_points"]:
        cells = [_format_volume(point["regions"].get(name)) for name in regions]
        table.add_row(str(point["day"]), point["state"] if point["compared"] else "not compared", *cells)
    console.print(table)
    lines = [*list_findings(record), *record["notes"]]
    if left_out:
        lines.append(f"without a scan, and left out: {', '.join(left_out)}")
    lines += [f"terms of the {name}: {text}" for name, text in terms.items()]
    print_lines(console, [*lines, record["statement"], f"page: {out}/follow.html, answers: {out}/day*/answer.html"])


def _format_volume(region: dict[str, Any] | None) -> str:
    if region is None:
        return ""
    change = region.get("changes", {}).get("volume_ml", {}).get("baseline")
    return f"{region['volume_ml']:.2f}" + (f" ({change:+.0f} %)" if change is not None else "")
