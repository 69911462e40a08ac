"""The page of an evaluation, `report.html`, and its numbers, `summary.json`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bundle.analysis.costs import Prices, Weights
from bundle.analysis.evaluation import Evaluation
from bundle.analysis.pairing import Matched
from bundle.analysis.region_summary import LOW
from bundle.analysis.scored_scans import Scans
from bundle.analysis.strict_json import to_strict_json
from bundle.analysis.summary import summarise_evaluation
from bundle.drawing.planes import PLANES, PREDICTION, TRUTH
from bundle.drawing.svg import Drawing
from bundle.reporting import score_figures, sentences, verdicts, volume_figures, words
from bundle.reporting.atlas import NO_FRAME, Atlas, make_atlas
from bundle.reporting.comparison_figures import draw_dice_pairs
from bundle.reporting.examples import PatientExample, describe_patient, illustrate_patients
from bundle.reporting.page import load_template
from bundle.reporting.size_sentences import describe_size_effect
from bundle.reporting.suspects import TABLE, Suspects, list_suspects
from scripts.files import write_json, write_text
from scripts.scoring.metrics import METRICS
from scripts.scoring.tables import write_table

OVERLAP, SIZE, LESIONS = "overlap and boundary", "{size}, {unit}", "lesions"
CASE_COLUMNS = (  # metric, heading, format, and heading of the group
    ("dice", "Dice", words.format_share3, OVERLAP),
    ("hd95", "HD95", words.format_amount, OVERLAP),
    ("nsd_2mm", "NSD", words.format_share, OVERLAP),
    ("volume_truth", "true", words.format_amount, SIZE),
    ("volume_prediction", "predicted", words.format_amount, SIZE),
    ("volume_fn", "missed", words.format_amount, SIZE),
    ("volume_fp", "added", words.format_amount, SIZE),
    ("lesions_tp", "found", words.format_whole, LESIONS),
    ("lesions_fn", "missed", words.format_whole, LESIONS),
    ("lesions_fp", "false", words.format_whole, LESIONS),
)


class Report(NamedTuple):
    """What was written: the numbers, the page, and the JSON file."""

    summary: dict[str, Any]
    page: Path
    numbers: Path


def write_report(
    evaluation: Evaluation,
    title: str,
    reference: Matched | None = None,
    weights: Weights = None,
    prices: Prices = None,
    scans: Scans | None = None,
) -> Report:
    """Write report.html, summary.json and, where labels were searched, label_errors.csv into an evaluation's folder.

    The reference (`bundle.analysis.summary.match_reference`) adds a comparison, region weights a weighted Dice, prices
    per ml a cost, and scans the atlas of errors, suspected label errors, and the pictures of patients.

    Raises:
        InputError: cases.csv lacks a metric that is needed, an image cannot be read, or a file cannot be written.
    """
    summary = summarise_evaluation(evaluation, title, reference, weights, prices)
    summary |= {
        "warnings": sentences.role_warnings(summary["roles"], summary["patients"]),
        "limits": list(sentences.evaluation_limits(summary)),
    }
    atlas = make_atlas(evaluation, scans) if scans else None
    suspects = list_suspects(evaluation, scans) if scans else None
    summary["atlas"] = atlas and to_strict_json(atlas.about)
    summary["label_errors"] = suspects and suspects.about
    examples = [describe_patient(evaluation, case) for case in (*summary["worst"], *summary["typical"])]
    if scans:
        examples = illustrate_patients(evaluation, examples, scans)
    report = Report(summary, evaluation.folder / "report.html", evaluation.folder / "summary.json")
    write_text(report.page, _render(summary, evaluation, reference, examples, atlas, suspects, scans))
    write_json(report.numbers, summary)
    if suspects and suspects.table is not None:
        write_table(suspects.table, evaluation.folder / TABLE)
    return report


def _render(
    summary: Mapping[str, Any],
    evaluation: Evaluation,
    reference: Matched | None,
    examples: Sequence[PatientExample],
    atlas: Atlas | None,
    suspects: Suspects | None,
    scans: Scans | None,
) -> str:
    """The page as text; `examples` are the worst patients and then the typical ones, with or without pictures."""
    regions, by_region = evaluation.regions, summary["regions"]
    rows = (summary["reference"] or {"differences": []})["differences"]
    columns = [column for column in CASE_COLUMNS if evaluation.has(column[0])]
    groups = Counter(group for *_, group in columns)
    size, unit = words.size_word(evaluation.volume_unit), words.unit_sign(evaluation.volume_unit)
    worst = len(summary["worst"])
    return load_template("report.html").render(
        s=summary,
        regions=regions,
        low=LOW,
        meanings=sentences.metric_meanings(
            evaluation.record, evaluation.length_unit, {*evaluation.units, *(summary["calibration"] or {})}
        ),
        spare=evaluation.record.get("files_of_no_case", 0),
        part=sentences.describe_part(summary),
        meanings_of_regions=sentences.describe_regions(regions),
        by_size=describe_size_effect(summary),
        findings=sentences.evaluation_findings(summary),
        distributions=[score_figures.draw_score_distributions(evaluation, region) for region in regions],
        by_volume=_without_none(
            volume_figures.draw_dice_by_volume(evaluation, region, own["thirds"]) for region, own in by_region.items()
        ),
        lesions_by_volume=_without_none(
            volume_figures.draw_lesions_by_volume(evaluation, region, own["lesions_by_volume"] or [])
            for region, own in by_region.items()
        ),
        has_lesion_table=evaluation.lesions is not None,
        errors=_without_none(volume_figures.draw_volume_errors(evaluation, region) for region in regions),
        agreement=_without_none(
            volume_figures.draw_volume_agreement(evaluation, region, own["agreement"])
            for region, own in by_region.items()
        ),
        boundaries=[
            score_figures.draw_boundary_distances(evaluation, region) for region in regions if evaluation.has("hd95")
        ],
        further=[
            (region, metric, spread)
            for region, own in by_region.items()
            for metric, spread in own["metrics"].items()
            if metric not in METRICS
        ],
        calibration=score_figures.draw_calibration_errors(evaluation) if summary["calibration"] else None,
        reliability=[
            score_figures.draw_reliability(region, curve) for region, curve in (summary["reliability"] or {}).items()
        ],
        against=draw_dice_pairs(reference, "there", "here") if reference else [],
        verdict=verdicts.reference_verdict([*rows, *summary["reference"]["tail"]]) if rows else "",
        power=verdicts.describe_power(rows, summary["reference"]["tests"]) if rows else "",
        worst=examples[:worst],
        typical=examples[worst:],
        colours={"truth": TRUTH, "prediction": PREDICTION},
        columns=[heading for _, heading, *_ in columns],
        groups=[(heading.format(size=size, unit=unit), span) for heading, span in groups.items()],
        rows=list(_case_rows(evaluation, columns)),
        size=size,
        atlas=atlas,
        suspects=suspects,
        no_atlas=NO_FRAME if scans and not atlas else "",
        oriented=any(tile.caption in PLANES for example in examples for tile in example.tiles),
        several=summary["cases"] > summary["patients"],
        folder=str(evaluation.folder),
    )


def _case_rows(evaluation: Evaluation, columns: Sequence[tuple]) -> Iterator[dict[str, Any]]:
    """One row per case and region; the patient is "" if it has the name of the case."""
    for row in evaluation.scores.to_dict("records"):
        cells = [write(row[metric]) for metric, _, write, _ in columns]
        patient = row["patient"] if row["patient"] != row["case"] else ""
        note = evaluation.failed.get(row["case"], "") if row["note"] == "failed" else row["note"]
        yield {"case": row["case"], "patient": patient, "region": row["region"], "cells": cells, "note": note}


def _without_none(drawings: Iterable[Drawing | None]) -> list[Drawing]:
    return [drawing for drawing in drawings if drawing is not None]
