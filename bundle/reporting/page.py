"""What stands on the page, and in which order? Puts numbers, figures, patients and words into `report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from bundle.evaluations import Evaluation
from bundle.reporting import figures, words
from bundle.reporting.examples import PREDICTION, TRUTH, Example
from bundle.reporting.svg import Drawing
from bundle.reporting.words import count, listed
from bundle.statistics import ENOUGH
from bundle.summaries import LOW

ROLE_WARNINGS = {
    "taught": "taught the network. Their scores say how well it remembers, and nothing about new patients.",
    "chose": "chose the checkpoint or the settings. Their scores are higher than those of new patients will be.",
}
CASE_COLUMNS = (  # metric, heading, how it is written
    ("dice", "Dice", lambda v: words.share(v, 3)),
    ("hd95", "HD95", words.amount),
    ("nsd_2mm", "NSD", words.share),
    ("volume_truth", "true", words.amount),
    ("volume_prediction", "predicted", words.amount),
    ("volume_fn", "missed", words.amount),
    ("volume_fp", "added", words.amount),
    ("lesions_tp", "found", words.amount),
    ("lesions_fn", "missed", words.amount),
    ("lesions_fp", "false", words.amount),
)


def render(
    summary: Mapping[str, Any],
    evaluation: Evaluation,
    reference: Evaluation | None,
    worst: Sequence[Example],
    typical: Sequence[Example],
) -> str:
    """The page as text.

    Args:
        summary: what `bundle.summaries.summarise` gave.
        evaluation: what it was made of.
        reference: the earlier evaluation that it is compared with.
        worst: the patients to look at, worst first, with or without pictures.
        typical: the same for the typical ones.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bundle.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        share=words.share,
        share3=lambda value: words.share(value, 3),
        amount=words.amount,
        change=words.change,
        signed=lambda value: words.amount(value, True),
        sign=words.sign,
        p_value=words.p_value,
        listed=listed,
        svg=lambda drawing: Markup(drawing.svg),  # made by `bundle.reporting.svg`, which escapes what it writes
    )
    environment.globals.update(
        count=count,
        name=words.name,
        between=words.between,
        amount=words.amount,
        share3=lambda v: words.share(v, 3),
        change=words.change,
        signed_amount=lambda v: words.amount(v, True),
    )
    regions = evaluation.regions
    compared = [r for r in regions if reference is not None and r in reference.regions]
    return environment.get_template("report.html").render(
        s=summary,
        regions=regions,
        low=LOW,
        definitions=evaluation.judged.get("definitions", {}),
        spare=evaluation.judged.get("files_of_no_case", 0),
        warnings=warnings(summary),
        findings=findings(summary),
        limits=limits(summary, evaluation),
        distributions=[figures.distributions(evaluation, region) for region in regions],
        by_volume=_there(figures.by_volume(evaluation, region) for region in regions),
        lesions_by_volume=_there(
            figures.lesions_by_volume(evaluation, region, summary["regions"][region]["lesions_by_volume"] or [])
            for region in regions
        ),
        has_lesion_table=evaluation.lesions is not None,
        errors=_there(figures.errors(evaluation, region) for region in regions),
        agreement=_there(figures.agreement(evaluation, region) for region in regions),
        boundaries=[figures.boundaries(evaluation, region) for region in regions] if evaluation.has("hd95") else [],
        calibration=figures.calibration(evaluation) if summary["calibration"] else None,
        against=[figures.against(evaluation, reference, region) for region in compared] if reference else [],
        worst=worst,
        typical=typical,
        colours={"truth": TRUTH, "prediction": PREDICTION},
        columns=[heading for metric, heading, _ in CASE_COLUMNS if evaluation.has(metric)],
        groups=column_groups(evaluation),
        rows=list(case_rows(evaluation)),
        several=summary["cases"] > summary["patients"],
        folder=str(evaluation.folder),
    )


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the first number."""
    used = summary["roles"] or {}
    return [
        f"{len(used[role])} of {count(summary['patients'], 'judged patient')} {text}"
        for role, text in ROLE_WARNINGS.items()
        if used.get(role)
    ]


def findings(summary: Mapping[str, Any]) -> list[str]:
    """The page in a few sentences."""
    regions = summary["regions"]
    said = []
    medians = [f"{words.share(own['metrics']['dice']['median'])} for {name}" for name, own in regions.items()]
    said.append(f"The median Dice is {listed(medians, len(medians))}.")
    low = [f"{own[f'dice_below_{LOW[0]}']} of {own['cases']} for {name}" for name, own in regions.items()]
    said.append(f"Below {LOW[0]}, where an outline is of little use, are {listed(low, len(low))}.")
    for note, text in (("missed", "missed altogether"), ("hallucinated", "drawn where there is none")):
        numbers = [f"{name} in {count(own[note], 'case')}" for name, own in regions.items() if own[note]]
        if numbers:
            said.append(f"{listed(numbers, len(numbers))} {'was' if len(numbers) == 1 else 'were'} {text}.")
    lost = len(summary["failed"]) + len(summary["missing"])
    if lost:
        said.append(f"{count(lost, 'case')} could not be judged and {'counts' if lost == 1 else 'count'} as Dice 0.")
    return said


def limits(summary: Mapping[str, Any], evaluation: Evaluation) -> list[str]:
    """What these numbers cannot say, in plain words."""
    n, lost = summary["patients"], len(summary["failed"]) + len(summary["missing"])
    said = []
    if n < ENOUGH:
        said.append(
            f"{count(n, 'patient')} {'is' if n == 1 else 'are'} few. Below {ENOUGH} the intervals on this page are too"
            " narrow, and two systems must differ much before the difference can be told from chance."
        )
    else:
        said.append(
            f"With {n} patients the intervals can be trusted roughly; one that is a hundredth wide needs 100 to 200 patients"
            " or more (El Jurdi et al. 2023)."
        )
    if summary["roles"] is None:
        said.append(
            "It is not written down whether these patients took part in training or in choosing the checkpoint. If they did,"
            " the scores are too high."
        )
    said.append(
        "The patients come from somewhere. Other scanners, hospitals, treatments or kinds of tumour can give quite"
        " different scores, and nothing here tells how different."
    )
    said.append(
        "The truth is what one reading drew. Experts differ too: for gliomas, Menze et al. (2015) found a Dice of 0.74 to"
        " 0.85 between human raters, by another protocol. Beyond that, a higher score means agreeing with this reading."
    )
    if summary["cases"] > n:
        said.append(
            f"{summary['cases']} cases come from {n} patients. Tables count cases; intervals draw patients, each with all"
            " of its cases, since scans of one patient are alike. The limits of agreement of volumes do not allow for that."
        )
    if lost:
        said.append(
            f"{count(lost, 'failed case')} {'counts' if lost == 1 else 'count'} as the worst score wherever the score is"
            " known (Dice 0, no distance). Volumes and lesions are not known without a mask, so parts on these leave"
            f" {'it' if lost == 1 else 'them'} out and look better than they are."
        )
    absent = {name: own["absent"] for name, own in summary["regions"].items() if own["absent"]}
    if absent:
        parts = [
            f"{name} in {count(k, 'case')} (mean Dice without"
            f" {'it' if k == 1 else 'them'}: {words.share(summary['regions'][name]['dice_mean_without_absent'], 3)})"
            for name, k in absent.items()
        ]
        said.append(
            f"A region that is neither there nor drawn counts as Dice 1, distance 0: {listed(parts, len(parts))}."
        )
    said.append(
        f"A surface distance tolerance near the size of a voxel measures the grid rather than the outline: the NSD here"
        f" allows 2 {summary['units']['length']}, which is fair for voxels of at most half of that."
    )
    if evaluation.has("lesionwise_dice_brats2023"):
        said.append(
            "Lesion-wise scores follow the rule of BraTS 2023. The tools of other years give other numbers for the same"
            " masks: compare like with like."
        )
    if summary["reference"]:
        said.append(
            "The comparison is of two sets of masks on the same cases. Training either system again would give other masks,"
            " and the test does not know by how much."
        )
    return said


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
        f"volume, {words.sign(evaluation.volume)}": ("volume_truth", "volume_prediction", "volume_fn", "volume_fp"),
        "lesions": ("lesions_tp", "lesions_fn", "lesions_fp"),
    }
    spans = [(heading, sum(evaluation.has(metric) for metric in metrics)) for heading, metrics in groups.items()]
    return [(heading, span) for heading, span in spans if span]


def _there(drawings: Any) -> list[Drawing]:
    return [drawing for drawing in drawings if drawing is not None]
