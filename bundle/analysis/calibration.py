"""Reliability curves of a network's probabilities: the tenths of `reliability.csv`, pooled over patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bundle.analysis.statistics import ratio_interval
from scripts.scoring.metrics import BINS

TELLING = 100  # voxels; the share of a tenth with fewer is an accident


def pool_reliability(table: pd.DataFrame, regions: Sequence[str]) -> dict[str, Any] | None:
    """The reliability curve of each region in the rows of reliability.csv; None where there is none.

    A voxel weighs one over the voxels of its patient: patients weigh the same, and a large tumour speaks no louder than
    a small one.
    """
    filled = dict(list(table[table["voxels"] > 0].groupby("region")))
    return {region: _curve(filled[region]) for region in regions if region in filled} or None


def _curve(own: pd.DataFrame) -> dict[str, Any]:
    tenths = (own["bin"] * BINS).round().astype(int)
    sums = [
        (own["voxels"] * share).groupby([own["patient"], tenths]).sum().unstack(fill_value=0)
        for share in (1.0, own["confidence"], own["frequency"])
    ]
    voxels, said, found = (table.reindex(columns=range(BINS)) for table in sums)
    each = [table.fillna(0).to_numpy() / voxels.sum(axis=1).to_numpy()[:, None] for table in (voxels, said, found)]
    bins = [_bin(k, voxels[k].sum(), *(weighted[:, k] for weighted in each)) for k in range(BINS)]
    shares = each[0].mean(axis=0)
    gaps = np.array([_too_sure(one) or 0.0 for one in bins])
    telling = [one for one in bins if one["voxels"] >= TELLING]
    return {
        "patients": len(voxels),
        "voxels": sum(one["voxels"] for one in bins),
        "gap": float(shares @ np.abs(gaps)),
        "over": float(shares @ gaps.clip(min=0)),
        "under": float(shares @ (-gaps).clip(min=0)),
        "furthest": max(telling, key=lambda one: abs(_too_sure(one)))["bin"] if telling else None,
        "bins": bins,
    }


def _bin(number: int, voxels: float, weight: np.ndarray, said: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    there = weight.sum() > 0
    return {
        "bin": number / BINS,
        "voxels": int(voxels),
        "patients": int((weight > 0).sum()),
        "confidence": float(said.sum() / weight.sum()) if there else None,
        "frequency": float(found.sum() / weight.sum()) if there else None,
        "frequency_interval": ratio_interval(found, weight),
    }


def _too_sure(one: dict[str, Any]) -> float | None:
    """How far what is said lies nearer to 0 or 1 than what comes true; negative where it is not sure enough."""
    if one["confidence"] is None:
        return None
    excess = one["confidence"] - one["frequency"]
    return excess if one["bin"] >= 0.5 else -excess
