"""What several test files share: images, messages, pages, and evaluations as `python -m bundle score` writes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from scripts.errors import InputError
from scripts.scoring.cohort import COLUMNS, RELIABILITY_COLUMNS
from scripts.scoring.metrics import METRICS

ROOT = Path(__file__).parents[2]
INF = float("inf")


@contextmanager
def at_repository_root() -> Iterator[None]:
    """The root as working directory, from which configs name each other; a workflow's excepthook is removed after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(sys, "excepthook", sys.excepthook)
        yield


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write an array as a NIfTI file, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(array), affine), path)
    return path


def refused(function: Callable, *arguments: Any, **options: Any) -> str:
    """The one line of the error that invalid input raises."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def rows_of(
    case: str, region: str, dice: float, truth: float = 20.0, patient: str = "", note: str = "", **more
) -> list:
    """The rows of one case and region, in mm and ml; `more` sets single metrics."""
    empty = note in ("missed", "hallucinated")
    prediction = 0.0 if note in ("missed", "absent") else truth * 1.1 + (0.5 if note == "hallucinated" else 0)
    common = 0.0 if empty else min(dice * (truth + prediction) / 2, truth)
    values = dict.fromkeys(METRICS, dice) | {
        "hd95": INF if empty else 10 * (1 - dice),
        "hd100": INF if empty else 20 * (1 - dice),
        "assd": INF if empty else 3 * (1 - dice),
        "volume_truth": truth,
        "volume_prediction": prediction,
        "volume_error": prediction - truth,
        "volume_error_absolute": abs(prediction - truth),
        "volume_error_relative": (prediction - truth) / truth if truth else 0.0,
        "volume_fp": prediction - common,
        "volume_fn": truth - common,
        "lesions_tp": float(not empty),
        "lesions_fp": float(note == "hallucinated"),
        "lesions_fn": float(note == "missed"),
    }
    values |= more
    units = {"length": "mm", "volume": "ml"}
    return [
        [case, patient or case, region, name, values[name], units.get(METRICS[name].unit, ""), note] for name in METRICS
    ]


def failed(case: str, reason: str = "no prediction: no file is named after it", patient: str = "") -> list:
    """The row of a failed case."""
    return [[case, patient or case, "all", "failed", 1.0, "", reason]]


def write(folder: Path, rows: list, **scored) -> Path:
    """Write cases.csv and, if there is anything for it, evaluation.json; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "cases.csv", index=False)
    if scored:
        (folder / "evaluation.json").write_text(json.dumps(scored), encoding="utf-8")
    return folder


def cohort(dices: list[float], region: str = "WT", truths: list[float] | None = None) -> list:
    """Rows of cases c00, c01 ... of as many patients."""
    truths = truths or [10.0 * (k + 1) for k in range(len(dices))]
    return [
        row
        for k, (dice, truth) in enumerate(zip(dices, truths, strict=True))
        for row in rows_of(f"c{k:02d}", region, dice, truth)
    ]


def tenths(folder: Path, rows: list) -> Path:
    """Write reliability.csv next to cases.csv, from (case, patient, region, bin, voxels, confidence, frequency)."""
    pd.DataFrame(rows, columns=RELIABILITY_COLUMNS).to_csv(folder / "reliability.csv", index=False)
    return folder


VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """The elements of a page and its text, checked for being closed in order."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & {*self.open}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]
