"""The page of an evaluation: `report.html`, made of numbers, figures, patients and words, and `summary.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bundle.analysis.costs import Price
from bundle.analysis.evaluation import Evaluation
from bundle.analysis.pairing import Matched
from bundle.analysis.region_summary import LOW
from bundle.analysis.summary import summarise
from bundle.drawing.planes import PLANES, PREDICTION, TRUTH
from bundle.drawing.svg import Drawing
from bundle.reporting import score_figures, verdicts, volume_figures, words
from bundle.reporting.comparison_figures import draw_dices
from bundle.reporting.examples import Example, Scans, describe, illustrate
from bundle.reporting.page import template
from bundle.reporting.sentences import findings, limits, meanings, part, warnings
from scripts.files import write_json, write_text
from scripts.scoring.metrics import METRICS

CASE_COLUMNS = (  # metric, heading, how it is written
    ("dice", "Dice", words.share3),
    ("hd95", "HD95", words.amount),
    ("nsd_2mm", "NSD", words.share),
    ("volume_truth", "true", words.amount),
    ("volume_prediction", "predicted", words.amount),
    ("volume_fn", "missed", words.amount),
    ("volume_fp", "added", words.amount),
    ("lesions_tp", "found", words.whole),
    ("lesions_fn", "missed", words.whole),
    ("lesions_fp", "false", words.whole),
)


class Report(NamedTuple):
    """What was written: the numbers, the page that shows them, and the file that holds them."""

    summary: dict[str, Any]
    page: Path
    numbers: Path


def write_report(
    evaluation: Evaluation,
    title: str,
    reference: Matched | None = None,
    weights: Mapping[str, float] | None = None,
    prices: Mapping[str, Price] | None = None,
    scans: Scans | None = None,
) -> Report:
    """Write report.html and summary.json into the folder of an evaluation.

    Args:
        evaluation: what is reported.
        title: of the page.
        reference: what it is compared with (`bundle.analysis.summary.match_reference`).
        weights: of the regions, for a weighted Dice.
        prices: of a ml in each region, for a cost.
        scans: the images, to draw the worst and the most typical patients.

    Raises:
        InputError: cases.csv lacks what is to be weighed, an image cannot be read, or a file cannot be written.
    """
    summary = summarise(evaluation, title, reference, weights, prices)
    summary |= {"warnings": warnings(summary), "limits": list(limits(summary))}
    examples = [describe(evaluation, case) for case in (*summary["worst"], *summary["typical"])]
    if scans:
        examples = illustrate(evaluation, examples, scans)
    worst = len(summary["worst"])
    report = Report(summary, evaluation.folder / "report.html", evaluation.folder / "summary.json")
    write_text(report.page, render(summary, evaluation, reference, examples[:worst], examples[worst:]))
    write_json(report.numbers, summary)
    return report


def render(
    summary: Mapping[str, Any],
    evaluation: Evaluation,
    reference: Matched | None,
    worst: Sequence[Example],
    typical: Sequence[Example],
) -> str:
    """The page as text.

    Args:
        summary: what `bundle.analysis.summary.summarise` gave.
        evaluation: what it was made of.
        reference: it and the earlier evaluation that it is compared with.
        worst: the patients to look at, worst first, with or without pictures.
        typical: the same for the typical ones.
    """
    regions, by_region = evaluation.regions, summary["regions"]
    rows = (summary["reference"] or {"differences": []})["differences"]
    return template("report.html").render(
        s=summary,
        regions=regions,
        low=LOW,
        meanings=meanings(evaluation.judged, evaluation.length),
        spare=evaluation.judged.get("files_of_no_case", 0),
        part=part(summary),
        findings=findings(summary),
        distributions=[score_figures.distributions(evaluation, region) for region in regions],
        by_volume=_there(
            volume_figures.by_volume(evaluation, region, by_region[region]["thirds"]) for region in regions
        ),
        lesions_by_volume=_there(
            volume_figures.lesions_by_volume(evaluation, region, by_region[region]["lesions_by_volume"] or [])
            for region in regions
        ),
        has_lesion_table=evaluation.lesions is not None,
        errors=_there(volume_figures.errors(evaluation, region) for region in regions),
        agreement=_there(
            volume_figures.agreement(evaluation, region, by_region[region]["agreement"]) for region in regions
        ),
        boundaries=[score_figures.boundaries(evaluation, region) for region in regions]
        if evaluation.has("hd95")
        else [],
        further=[
            (region, metric, spread)
            for region, own in by_region.items()
            for metric, spread in own["metrics"].items()
            if metric not in METRICS
        ],
        calibration=score_figures.calibration(evaluation) if summary["calibration"] else None,
        reliability=[
            score_figures.reliability(region, curve) for region, curve in (summary["reliability"] or {}).items()
        ],
        against=draw_dices(reference, "there", "here") if reference else [],
        verdict=verdicts.reference(rows) if rows else "",
        power=verdicts.power(rows, summary["reference"]["tests"]) if rows else "",
        worst=worst,
        typical=typical,
        colours={"truth": TRUTH, "prediction": PREDICTION},
        columns=[heading for metric, heading, _ in CASE_COLUMNS if evaluation.has(metric)],
        groups=column_groups(evaluation),
        rows=list(case_rows(evaluation)),
        size=words.size(evaluation.volume),
        oriented=any(tile.caption in PLANES for example in (*worst, *typical) for tile in example.tiles),
        several=summary["cases"] > summary["patients"],
        folder=str(evaluation.folder),
    )


def case_rows(evaluation: Evaluation):
    """One row a case and region: (case, patient or "", region, cells, note)."""
    metrics = [(metric, write) for metric, _, write in CASE_COLUMNS if evaluation.has(metric)]
    for row in evaluation.scores.to_dict("records"):
        cells = [write(row[metric]) for metric, write in metrics]
        patient = row["patient"] if row["patient"] != row["case"] else ""
        note = evaluation.failed.get(row["case"], "") if row["note"] == "failed" else row["note"]
        yield {"case": row["case"], "patient": patient, "region": row["region"], "cells": cells, "note": note}


def column_groups(evaluation: Evaluation) -> list[tuple[str, int]]:
    """The headings over the columns of the table of cases, and how many columns each spans."""
    groups = {
        "overlap and border": ("dice", "hd95", "nsd_2mm"),
        f"{words.size(evaluation.volume)}, {words.sign(evaluation.volume)}": (
            "volume_truth",
            "volume_prediction",
            "volume_fn",
            "volume_fp",
        ),
        "lesions": ("lesions_tp", "lesions_fn", "lesions_fp"),
    }
    spans = [(heading, sum(evaluation.has(metric) for metric in metrics)) for heading, metrics in groups.items()]
    return [(heading, span) for heading, span in spans if span]


def _there(drawings: Any) -> list[Drawing]:
    return [drawing for drawing in drawings if drawing is not None]
