"""The smallest component of each region, selected on the validation cases."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from scripts.data.images import connected_components
from scripts.data.imperfect_labels import split_raters
from scripts.distributed import gather_items

CANDIDATES_ML = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # 1 ml is a ball of 12 mm across
DICE_TOLERANCE = 0.001  # mean Dice that a cleaner mask may cost
FEWEST_PATIENTS = 10  # with fewer, one patient decides

logger = logging.getLogger(__name__)


class ComponentStatistics:
    """Collects the predicted components of each validation pass, and selects each region's smallest volume from them.

    Args:
        regions: the regions in channel order.
        patients: patient of each case; None: each case is a patient of its own.
        limits: region to the largest volume in ml that may be selected; None: any.

    Attach it to the validation evaluator, which must decollate, with binary `pred` and `label` [R, ...] in its output,
    and `voxel_ml`, the volume of a voxel, in its batch; a label of several raters, one after the other, counts once for
    each.
    """

    def __init__(
        self,
        regions: Sequence[str],
        patients: Mapping[str, str] | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        self.regions, self.patients, self.limits = list(regions), patients, limits or {}
        self.cases: list[list[dict[str, Any]]] = []
        self.owners: list[str] = []  # the patient of each case, if known
        self.explained = False

    def attach(self, engine: Engine) -> None:
        """Reset at the start of each pass, collect each case, and gather from all processes at the end."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._share)

    def _reset(self) -> None:
        self.cases, self.owners = [], []

    def _collect(self, engine: Engine) -> None:
        for item, source in zip(engine.state.output, engine.state.batch, strict=True):
            ml = float(source["voxel_ml"])
            components = [connected_components(pred) for pred in (item["pred"] > 0).cpu().numpy()]
            for label in split_raters(item["label"], len(self.regions)):
                case = []
                for (numbered, sizes), truth in zip(components, (label > 0).cpu().numpy(), strict=True):
                    overlaps = np.bincount(numbered[truth], minlength=len(sizes) + 1)[1:]
                    case.append({"ml": sizes * ml, "hit": overlaps * ml, "truth": truth.sum() * ml})
                self.cases.append(case)
                self.owners += [] if self.patients is None else [self.patients[source["case"]]]

    def _share(self) -> None:
        self.cases, self.owners = gather_items(self.cases), gather_items(self.owners)

    def select_thresholds(self) -> dict[str, float]:
        """Region to minimum volume in ml (of pictures: thousands of pixels).

        The candidate with the fewest false components among those whose mean Dice is within 0.001 of the best; of equal
        ones the smallest volume. The largest component of a case always stays (`RemoveSmallComponentsd`). With fewer
        than `FEWEST_PATIENTS` patients nothing is removed, and the log says so.
        """
        number = len(self.cases) if self.patients is None else len({*self.owners})
        if number < FEWEST_PATIENTS:
            if not self.explained:
                logger.info(
                    "no component is removed, whatever its size: %d validation patients are too few to select"
                    " min_component_ml, which takes %d",
                    number,
                    FEWEST_PATIENTS,
                )
            self.explained = True
            return dict.fromkeys(self.regions, 0.0)
        return {
            region: self._select_threshold([case[index] for case in self.cases], self.limits.get(region, np.inf))
            for index, region in enumerate(self.regions)
        }

    @staticmethod
    def _select_threshold(cases: Sequence[Mapping[str, Any]], limit: float) -> float:
        dice, false = [], []
        candidates = [minimum for minimum in CANDIDATES_ML if minimum <= limit]
        for minimum in candidates:
            scores, wrong = [], 0
            for case in cases:
                kept = case["ml"] >= min(minimum, case["ml"].max(initial=0))
                total = case["ml"][kept].sum() + case["truth"]
                scores.append(2 * case["hit"][kept].sum() / total if total else 1.0)
                wrong += int((case["hit"][kept] == 0).sum())
            dice.append(np.mean(scores))
            false.append(wrong)
        good = [i for i, score in enumerate(dice) if score >= max(dice) - DICE_TOLERANCE]
        return candidates[min(good, key=lambda i: (false[i], candidates[i]))]
