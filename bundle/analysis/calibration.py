"""Reliability curves of a network's probabilities: the bins of `reliability.csv`, pooled over patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bundle.analysis.statistics import ratio_interval
from scripts.scoring.metrics import BINS

ENOUGH_VOXELS = 100  # voxels; the frequency in a bin with fewer is too uncertain


def pool_reliability(table: pd.DataFrame, regions: Sequence[str]) -> dict[str, Any] | None:
    """The reliability curve of each region in the rows of reliability.csv; None without rows.

    Patients have equal weight, whatever the size of their tumour: each voxel weighs one over its patient's voxels.
    """
    filled = dict(list(table[table["voxels"] > 0].groupby("region")))
    return {region: _curve(filled[region]) for region in regions if region in filled} or None


def _curve(own: pd.DataFrame) -> dict[str, Any]:
    tenths = (own["bin"] * BINS).round().astype(int)
    sums = [
        (own["voxels"] * share).groupby([own["patient"], tenths]).sum().unstack(fill_value=0)
        for share in (1.0, own["confidence"], own["frequency"])
    ]
    voxels, confidence, frequency = (table.reindex(columns=range(BINS)) for table in sums)
    each = [
        table.fillna(0).to_numpy() / voxels.sum(axis=1).to_numpy()[:, None] for table in (voxels, confidence, frequency)
    ]
    bins = [_bin(k, voxels[k].sum(), *(weighted[:, k] for weighted in each)) for k in range(BINS)]
    shares = each[0].mean(axis=0)
    gaps = np.array([_over_confidence(one) or 0.0 for one in bins])
    certain = [one for one in bins if one["voxels"] >= ENOUGH_VOXELS]
    return {
        "patients": len(voxels),
        "voxels": sum(one["voxels"] for one in bins),
        "gap": float(shares @ np.abs(gaps)),
        "over": float(shares @ gaps.clip(min=0)),
        "under": float(shares @ (-gaps).clip(min=0)),
        "furthest": max(certain, key=lambda one: abs(_over_confidence(one)))["bin"] if certain else None,
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


def _over_confidence(one: dict[str, Any]) -> float | None:
    """How much nearer to 0 or 1 the confidence is than the frequency (over-confident); negative if under-confident."""
    if one["confidence"] is None:
        return None
    excess = one["confidence"] - one["frequency"]
    return excess if one["bin"] >= 0.5 else -excess
