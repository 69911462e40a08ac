"""What stands on the page, and in which order? Puts numbers, figures, patients and words into `report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from bundle.analysis.evaluation import Evaluation
from bundle.analysis.pairing import Matched
from bundle.analysis.region_summary import LOW
from bundle.drawing.svg import Drawing
from bundle.reporting import figures, verdicts, words
from bundle.reporting.examples import PLANES, PREDICTION, TRUTH, Example
from bundle.reporting.sentences import findings, meanings, part
from scripts.scoring.metrics import METRICS

SAID = (  # how the template writes numbers and names
    words.amount,
    words.between,
    words.change,
    words.count,
    words.listed,
    words.name,
    words.p_value,
    words.share,
    words.share3,
    words.sign,
    words.signed,
    verdicts.ends,
    verdicts.gap,
    verdicts.percent,
    verdicts.score,
    verdicts.value,
)
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


def template(name: str) -> jinja2.Template:
    """A page to be filled, which knows how numbers and names are written."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bundle.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update({said.__name__: said for said in SAID})
    return environment.get_template(name)


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
        distributions=[figures.distributions(evaluation, region) for region in regions],
        by_volume=_there(figures.by_volume(evaluation, region, by_region[region]["thirds"]) for region in regions),
        lesions_by_volume=_there(
            figures.lesions_by_volume(evaluation, region, by_region[region]["lesions_by_volume"] or [])
            for region in regions
        ),
        has_lesion_table=evaluation.lesions is not None,
        errors=_there(figures.errors(evaluation, region) for region in regions),
        agreement=_there(figures.agreement(evaluation, region, by_region[region]["agreement"]) for region in regions),
        boundaries=[figures.boundaries(evaluation, region) for region in regions] if evaluation.has("hd95") else [],
        further=[
            (region, metric, spread)
            for region, own in by_region.items()
            for metric, spread in own["metrics"].items()
            if metric not in METRICS
        ],
        calibration=figures.calibration(evaluation) if summary["calibration"] else None,
        reliability=[figures.reliability(region, curve) for region, curve in (summary["reliability"] or {}).items()],
        against=_against(reference, "there", "here") if reference else [],
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


def render_comparison(comparison: Mapping[str, Any], matched: Matched) -> str:
    """The page of `python -m bundle compare` as text.

    Args:
        comparison: the content of compare.json.
        matched: what it was made of.
    """
    pairs = []
    for pair in comparison["pairs"]:
        first, second, rows = pair["first"], pair["second"], pair["differences"]
        metrics = dict.fromkeys(row["metric"] for row in rows)
        drawn = [
            figures.differences(matched, first, second, [row for row in rows if row["metric"] == metric])
            for metric in metrics
        ]
        pairs.append({**pair, "figures": drawn, "against": _against(matched, first, second)})
    return template("compare.html").render(c=comparison, pairs=pairs, together=matched.slices_together)


def _against(matched: Matched, first: str, second: str) -> list[Drawing]:
    return [figures.against(matched, region, first, second) for metric, region in matched.values if metric == "dice"]


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
