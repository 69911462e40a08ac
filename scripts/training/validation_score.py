"""The validation score: weighted mean Dice over regions, with a floor."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events

from scripts.data.imperfect_labels import split_raters
from scripts.distributed import gather_items
from scripts.errors import InputError
from scripts.scoring import metrics
from scripts.scoring.added_metrics import find_metrics
from scripts.scoring.cohort import COLUMNS
from scripts.scoring.summary import LOW_DICE, tabulate_regions

# the cheap ones; distances and lesions are left to `evaluating`, on the label files' own grid
MEASURED_METRICS = (*metrics.OVERLAP, *metrics.VOLUMES)


def check_region_weights(weights: Mapping[str, float] | None, regions: Sequence[str]) -> None:
    """Check that each region has a weight, in the order of the regions, since losses take them by channel.

    Raises:
        InputError: names the regions.
    """
    if weights is not None and [*weights] != [*regions]:
        raise InputError(
            f"region_weights has {', '.join(weights)}: expected a weight for each of {', '.join(regions)}, in this"
            " order."
        )


class RegionScore:
    """Scores each case of a validation; the score is the weighted mean over regions of the mean Dice over cases.

    It is lowered by 1 while any region is under the floor: such an epoch ranks below every accepted one, however good
    its mean. A region that is absent from a case scores 1 if nothing was predicted and else 0: hallucinations count.
    Against several raters, one after the other in the label, a case has the mean over them. Adds `dice_<region>` (the
    mean), `dice_median_<region>` and `dice_under_0.7_<region>` (cases) to the metrics.

    Args:
        regions: the regions in channel order.
        patients: case to patient, for the cases of this process.
        weights: region name to weight; None: equal weights.
        floor: the smallest mean Dice that any region may have.
        unit: mm, or pixel if its size is unknown.
        added: metrics of the user's own (`scripts.scoring.added_metrics`), whose means are
            logged as `<metric>_<region>`; voxels of the training grid count as cubes.

    Attributes:
        cases: the rows of the last pass (`scripts.scoring.cohort.COLUMNS`), of all processes, sorted by case.

    Attach it to an evaluator whose batches are lists of cases, with binary `pred` and `label` [R, ...] in its output.
    """

    def __init__(
        self,
        regions: Sequence[str],
        patients: Mapping[str, str],
        weights: Mapping[str, float] | None = None,
        floor: float = 0.0,
        unit: str = "mm",
        added: Sequence[str] = (),
    ) -> None:
        self.added = find_metrics(added)
        self.regions, self.patients, self.floor, self.unit = list(regions), dict(patients), floor, unit
        check_region_weights(weights, self.regions)
        self.weights = [1.0 if weights is None else float(weights[name]) for name in self.regions]
        self.rows: list[list] = []
        self.cases = pd.DataFrame(columns=COLUMNS)

    def attach(self, engine: Engine, name: str) -> None:
        """Reset at the start of each pass, score each case, and set the metric of this name at the end."""
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._score, name)

    def describe_scores(self) -> str:
        """Mean, median and number of low cases of each region, for a line of the log."""
        table = tabulate_regions(self.cases)
        numbers = [f"{name} {row['mean']:.3f} {row['median']:.3f} {row['low']:.0f}" for name, row in table.iterrows()]
        own = [
            f"  {metric.name} (mean)  " + "  ".join(f"{region} {mean:.3f}" for region, mean in self._means(metric.name))
            for metric in self.added
        ]
        return f"Dice (mean, median, under {LOW_DICE} of {table['n'].iloc[0]})  {'  '.join(numbers)}{''.join(own)}"

    def _means(self, metric: str) -> list[tuple[str, float]]:
        """The mean over cases of each region."""
        means = self.cases[self.cases["metric"] == metric].groupby("region")["value"].mean()
        return [(region, float(means[region])) for region in self.regions]

    def _measure(self, engine: Engine) -> None:
        for item, source in zip(engine.state.output, engine.state.batch, strict=True):
            case, prediction = source["case"], (item["pred"] > 0).cpu().numpy()
            by_rater = split_raters(item["label"], len(self.regions))
            found = [self._rows((own > 0).cpu().numpy(), prediction, float(source["voxel_ml"])) for own in by_rater]
            for rows in zip(*found, strict=True):
                region, name, _, unit, note = rows[0]
                value = rows[0][2] if len(rows) == 1 else float(np.mean([row[2] for row in rows]))
                note = note if len({row[4] for row in rows}) == 1 else ""
                self.rows.append([case, self.patients[case], region, name, value, unit, note])

    def _rows(self, truth: np.ndarray, prediction: np.ndarray, voxel_ml: float) -> list[tuple]:
        """Region, metric, value, unit and note of masks [R, ...]."""
        pixels, rows = self.unit == "pixel", []
        units = {"": "", "volume": "pixel" if pixels else "ml"}
        voxel = 1.0 if pixels else voxel_ml
        for region, true, predicted in zip(self.regions, truth, prediction, strict=True):
            note, sizes = metrics.empty_note(true, predicted), [voxel] + [1.0] * (true.ndim - 1)
            for name, value in metrics.measure_region(true, predicted, sizes, wanted=MEASURED_METRICS).items():
                rows.append((region, name, value, units[metrics.METRICS[name].unit], note))
            side = 1.0 if pixels else (voxel * 1000) ** (1 / true.ndim)
            for metric in self.added:
                value = metric.measure(true, predicted, [side] * true.ndim)
                rows.append((region, metric.name, value, metric.definition.unit, note))
        return rows

    def _score(self, engine: Engine, name: str) -> None:
        self.cases = pd.DataFrame(sorted(gather_items(self.rows), key=lambda row: row[0]), columns=COLUMNS)
        table = tabulate_regions(self.cases).loc[self.regions]
        for prefix, column in (("dice", "mean"), ("dice_median", "median"), (f"dice_under_{LOW_DICE}", "low")):
            engine.state.metrics |= {f"{prefix}_{region}": float(table[column][region]) for region in self.regions}
        for metric in self.added:
            engine.state.metrics |= {f"{metric.name}_{region}": mean for region, mean in self._means(metric.name)}
        mean = float(np.average(table["mean"], weights=self.weights))
        engine.state.metrics[name] = mean if table["mean"].min() >= self.floor else mean - 1.0
