"""What stands on the page about raters? Puts numbers, figures, pictures and words into `raters.html`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.analysis.rater_masks import CONSENSUS, MODEL
from bundle.analysis.rater_pairs import METRICS
from bundle.reporting import agreement_figures, words
from bundle.reporting.agreement_sentences import findings, limits, warnings
from bundle.reporting.page import template

MOST_PICTURES = 24  # on the page; those with the least agreement
SHOWN = ("dice", "hd95", "nsd_2mm")  # in the tables of pairs and persons


def render(summary: Mapping[str, Any], pairs: pd.DataFrame, folder: Path) -> str:
    """The page as text.

    Args:
        summary: what `bundle.analysis.agreement_summary.summarise` gave.
        pairs: the table that it was made of.
        folder: where the pictures of disagreement lie.
    """
    raters = summary["raters"]
    drawings = [
        agreement_figures.by_image(pairs, raters),
        agreement_figures.by_person(pairs, summary),
        agreement_figures.sizes(summary),
    ]
    pictures = _pictures(summary, folder)
    return template("raters.html").render(
        s=summary,
        what=words.size(summary["units"]["size"]),
        metrics=METRICS,
        shown=SHOWN,
        write={metric: words.amount if metric == "hd95" else words.share3 for metric in METRICS},
        people={**summary["by_rater"], **({MODEL: summary["model"]} if summary["model"] else {})},
        consensus=CONSENSUS,
        findings=findings(summary),
        warnings=warnings(summary),
        limits=limits(summary),
        drawings=[drawing for drawing in drawings if drawing],
        pictures=pictures,
        all_pictures=sum(1 for own in summary["images"].values() if own["picture"]),
    )


def _pictures(summary: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The pictures of the images that raters agree least on."""
    drawn = {name: own for name, own in summary["images"].items() if own["picture"]}
    least = sorted(drawn, key=lambda name: (drawn[name]["dice"], name))[:MOST_PICTURES]
    return [
        {
            "image": name,
            **drawn[name],
            "source": "data:image/png;base64,"
            + base64.b64encode((folder / drawn[name]["picture"]).read_bytes()).decode(),
        }
        for name in least
    ]
