"""Where in the brain, and in parts of which size, the errors of many patients are."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bundle.analysis.case_errors import CLASSES, KINDS, THIRDS, CaseErrors

CELL_SHARE = 0.1  # of a cell that is wrong, at least, for a patient to count there on the map
PLACE_ML = 0.1  # that are wrong, at least, for a patient to count at a place
PLACES = 3  # to name per region and kind


class ErrorMap(NamedTuple):
    """The errors of one kind in one region: `share` is [cell, cell, cell] in RAS, the share of patients with an error
    there, and `about` the numbers for summary.json.
    """

    region: str
    kind: str
    share: np.ndarray
    about: dict[str, Any]


class ErrorAtlas(NamedTuple):
    """The errors of all patients: `brain` is the mean share of each cell that is brain, `size` the mean box in mm."""

    cases: int
    patients: int
    brain: np.ndarray
    size: np.ndarray
    maps: list[ErrorMap]
    parts: dict[str, list[dict[str, Any]]]

    def describe(self) -> dict[str, Any]:
        """The numbers for summary.json."""
        regions: dict[str, dict[str, Any]] = {}
        for own in self.maps:
            regions.setdefault(own.region, {})[own.kind] = own.about
        return {
            "cases": self.cases,
            "patients": self.patients,
            "place_ml": PLACE_ML,
            "regions": {region: {**own, "parts": self.parts[region]} for region, own in regions.items()},
        }


def pool_errors(cases: Sequence[CaseErrors]) -> ErrorAtlas:
    """Pool the errors of cases by patient: of several cases of a patient their mean volume, and an error in any."""
    patients = sorted({case.patient for case in cases})
    own = {patient: [case for case in cases if case.patient == patient] for patient in patients}
    maps = [_map(own, region, kind) for region in cases[0].maps for kind in KINDS]
    return ErrorAtlas(
        cases=len(cases),
        patients=len(patients),
        brain=np.mean([case.brain for case in cases], axis=0),
        size=np.mean([case.size for case in cases], axis=0),
        maps=maps,
        parts={region: _parts(cases, region) for region in cases[0].parts},
    )


def _map(own: dict[str, list[CaseErrors]], region: str, kind: str) -> ErrorMap:
    errs = [np.max([case.maps[region][kind] for case in cases], axis=0) >= CELL_SHARE for cases in own.values()]
    wrong, labelled = (
        np.stack([np.mean([case.places[region][which] for case in cases], axis=0) for cases in own.values()])
        for which in (kind, "label")
    )
    total = float(wrong.sum())
    counts, volumes = (wrong >= PLACE_ML).sum(0), wrong.sum(0)
    order = sorted(product(range(THIRDS), repeat=3), key=lambda place: (-counts[place], -volumes[place]))
    places = [
        {
            "place": list(place),
            "patients": [name for name, ml in zip(own, wrong[(slice(None), *place)], strict=True) if ml >= PLACE_ML],
            "with_region": int((labelled[(slice(None), *place)] >= PLACE_ML).sum()),
            "ml": float(volumes[place]),
            "share": float(volumes[place]) / total,
        }
        for place in order[:PLACES]
        if counts[place]
    ]
    about = {"ml": total, "patients": int((wrong.sum((1, 2, 3)) >= PLACE_ML).sum()), "places": places}
    return ErrorMap(region, kind, np.mean(errs, axis=0), about)


def _parts(cases: Sequence[CaseErrors], region: str) -> list[dict[str, Any]]:
    """Connected parts by class of their volume: of the label with what is missed, of the mask with what is added."""
    missed, added = np.sum([case.parts[region] for case in cases], axis=0)
    return [
        {
            "above": low,
            "up_to": high,
            "label": int(missed[k, 0]),
            "not_found": int(missed[k, 1]),
            "missed_ml": float(missed[k, 2]),
            "predicted": int(added[k, 0]),
            "false": int(added[k, 1]),
            "added_ml": float(added[k, 2]),
        }
        for k, (low, high) in enumerate(CLASSES)
    ]
