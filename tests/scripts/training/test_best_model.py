"""Selection of the best epoch; an epoch that lost a region ranks below the others."""

import json
import time

import pytest
import torch
import yaml
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import ValidationHandler

from scripts.errors import InputError
from scripts.network.weights import read_weights
from scripts.scoring.cohort import COLUMNS, read_cases
from scripts.training.best_model import BestModel
from scripts.training.budget import Budget
from scripts.training.component_thresholds import ComponentStatistics
from scripts.training.run_folder import RunFolder
from scripts.training.validation_score import RegionScore


def mask(*voxels: int) -> torch.Tensor:
    """One region [1, 1, 1, 8] with ones at these voxels."""
    made = torch.zeros(1, 1, 1, 8)
    made[..., list(voxels)] = 1
    return made


def case(wt: tuple[tuple, tuple], et: tuple[tuple, tuple]) -> dict[str, torch.Tensor]:
    """(predicted, true) voxels of two regions."""
    pairs = {"pred": (wt[0], et[0]), "label": (wt[1], et[1])}
    return {key: torch.cat([mask(*voxels) for voxels in regions]) for key, regions in pairs.items()}


def validated(*cases: dict[str, torch.Tensor], passes: int = 1, **others) -> tuple[RegionScore, dict[str, float]]:
    """The scores of cases c0, c1 ... of patients p0, p1 ..., and the metrics of the evaluator that saw them."""
    score = RegionScore(["WT", "ET"], {f"c{number}": f"p{number}" for number in range(len(cases))}, **others)
    engine = Engine(lambda _, batch: batch)
    score.attach(engine, "val_score")
    for _ in range(passes):
        engine.run([[{"case": f"c{number}", "voxel_ml": torch.tensor([0.008]), **c}] for number, c in enumerate(cases)])
    return score, engine.state.metrics


def scored(*cases: dict[str, torch.Tensor], **others) -> dict[str, float]:
    """The metrics of an evaluator whose batches are single cases."""
    return validated(*cases, **others)[1]


# WT: 2 * 1 / (2 + 2) = 0.5 and 1; ET: 1 and 2 * 1 / (1 + 3) = 0.5
CASES = [case(wt=((0, 1), (1, 2)), et=((4,), (4,))), case(wt=((3, 4), (3, 4)), et=((5,), (5, 6, 7)))]
# ET is never found: WT 1, ET 0
LOST = [case(wt=((0, 1), (0, 1)), et=((), (4,)))]


def test_score_is_the_region_mean_of_mean_dice_over_cases():
    metrics = scored(*CASES, case(wt=((0,), (0,)), et=((4,), (4,))))
    assert metrics["dice_WT"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert metrics["dice_ET"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert metrics["val_score"] == pytest.approx(2.5 / 3)


def test_a_case_of_several_raters_has_their_mean():
    first, second = case(wt=((0, 1), (0, 1)), et=((4,), ())), case(wt=((0, 1), (1, 2)), et=((4,), (4,)))
    both = {"pred": first["pred"], "label": torch.cat([first["label"], second["label"]])}
    score, metrics = validated(both)
    assert (metrics["dice_WT"], metrics["dice_ET"]) == ((1 + 0.5) / 2, (0 + 1) / 2)
    assert not score.cases.query("region == 'ET'")["note"].any()  # hallucinated for one of them alone


def test_regions_count_by_their_weights():
    only_wt = [case(wt=((0,), (0,)), et=((4,), (4, 5, 6)))]  # WT 1, ET 0.5
    assert scored(*only_wt, weights={"WT": 3, "ET": 1})["val_score"] == pytest.approx((3 * 1 + 0.5) / 4)


@pytest.mark.parametrize(("predicted", "expected"), [((), 1.0), ((6,), 0.0)])
def test_absent_region_scores_1_unless_something_was_predicted(predicted, expected):
    assert scored(case(wt=((0,), (0,)), et=(predicted, ())))["dice_ET"] == expected


def test_median_and_low_cases_accompany_the_mean():
    cases = [*CASES, case(wt=((0,), (0,)), et=((), ())), case(wt=((), (0,)), et=((4,), (4,)))]
    score, metrics = validated(*cases)  # WT 0.5, 1, 1, 0; ET 1, 0.5, 1 (true negative), 1
    assert metrics["dice_WT"] == pytest.approx(0.625)
    assert metrics["dice_median_WT"] == pytest.approx(0.75)
    assert metrics["dice_median_ET"] == 1
    assert (metrics["dice_under_0.7_WT"], metrics["dice_under_0.7_ET"]) == (2, 1)
    assert score.describe_scores() == "Dice (mean, median, under 0.7 of 4)  WT 0.625 0.750 2  ET 0.875 1.000 1"


def test_every_case_is_in_the_table_with_patient_and_volumes():
    lost = case(wt=((0,), (0,)), et=((), (4, 5)))
    table = validated(*CASES, lost)[0].cases
    assert list(table.columns) == COLUMNS
    assert dict(zip(table["case"], table["patient"], strict=True)) == {"c0": "p0", "c1": "p1", "c2": "p2"}
    rows = table[(table["case"] == "c2") & (table["region"] == "ET")].set_index("metric")
    assert set(rows["note"]) == {"missed"}
    assert rows["value"]["volume_truth"] == pytest.approx(0.016)  # two voxels of 0.008 ml
    assert (rows["unit"]["volume_truth"], rows["unit"]["dice"], rows["value"]["dice"]) == ("ml", "", 0)
    in_pixels = validated(*CASES, unit="pixel")[0].cases.query("metric == 'volume_truth' and region == 'ET'")
    assert list(in_pixels["value"]) == [1, 3]
    assert set(in_pixels["unit"]) == {"pixel"}


def test_several_processes_score_the_cases_of_all(in_two_processes):
    def one(rank: int) -> tuple[dict[str, float], list[str]]:
        own = RegionScore(["WT", "ET"], {f"c{rank}": "p"})
        engine = Engine(lambda _, batch: batch)
        own.attach(engine, "val_score")
        engine.run([[{"case": f"c{rank}", "voxel_ml": torch.tensor([0.008]), **CASES[rank]}]])
        return engine.state.metrics, list(own.cases["case"].unique())

    expected = scored(*CASES)
    assert in_two_processes(one) == [(expected, ["c0", "c1"])] * 2


def test_epoch_that_lost_a_region_ranks_below_every_accepted_one():
    lost = scored(*LOST, floor=0.1)
    poor = scored(case(wt=((0, 1, 2), (2, 3, 4)), et=((5, 6, 7), (5, 4, 3))), floor=0.1)  # both 1/3
    assert lost["val_score"] < 0 < poor["val_score"]
    assert scored(*LOST)["val_score"] > poor["val_score"]  # without a floor the better mean wins


def test_among_epochs_under_the_floor_the_better_mean_ranks_higher():
    worse = [case(wt=((0, 1), (1, 2)), et=((), (4,)))]
    assert scored(*worse, floor=0.1)["val_score"] < scored(*LOST, floor=0.1)["val_score"] < 0


def test_a_region_exactly_at_the_floor_is_accepted():
    assert scored(case(wt=((0, 1), (1, 2)), et=((4,), (4,))), floor=0.5)["val_score"] == pytest.approx(0.75)


def test_second_validation_starts_without_the_first_ones_cases():
    assert scored(*CASES, passes=2) == pytest.approx(scored(*CASES))


@pytest.mark.parametrize("weights", [{"WT": 1}, {"WT": 1, "TC": 1}, {"WT": 1, "ET": 1, "TC": 1}])
def test_weights_of_other_regions_are_refused(weights):
    with pytest.raises(InputError, match=r"region_weights has .*: expected a weight for each of WT, ET"):
        scored(*CASES, weights=weights)


def test_weights_in_another_order_than_channels_are_refused():
    with pytest.raises(InputError, match=r"region_weights has ET, WT: expected .*WT, ET, in this order"):
        scored(*CASES, weights={"ET": 2, "WT": 1})


# ---- the best model ------------------------------------------------------------------------------------------------


class Run:
    """A training whose weight is the number of its epoch, with the scores that its validations will get."""

    def __init__(self, tmp_path, scores: dict[int, float], epochs: int = 4, interval: int = 1, seconds=0.0, **others):
        self.path, self.epochs, self.validated = tmp_path / "run", epochs, []
        self.network = torch.nn.Linear(1, 1, bias=False)
        self.trainer = Engine(self.step)
        self.evaluator = Evaluator(
            device=torch.device("cpu"),
            val_data_loader=[[{"case": "c", "voxel_ml": torch.tensor([0.015])}]],
            iteration_update=self.validate,
            decollate=False,
        )
        self.seconds = seconds
        self.budget = others.pop("budget", Budget(max_epochs=epochs, steps_per_epoch=2))
        self.budget.attach(self.trainer)

        @self.evaluator.on(Events.COMPLETED)
        def score() -> None:
            epoch = self.trainer.state.epoch
            self.validated.append(epoch)
            self.evaluator.state.metrics = {"val_score": scores[epoch], "dice_WT": 0.75}

        components, measured = ComponentStatistics(["WT"]), RegionScore(["WT"], {"c": "p"})
        components.attach(self.evaluator)
        measured.attach(self.evaluator, "measured")
        self.folder = RunFolder(self.path, resume=False, settings={"channels": ["T1"]}, about={})
        self.best = BestModel(self.evaluator, measured, self.network, self.folder, components, self.budget, **others)
        ValidationHandler(interval, self.evaluator).attach(self.trainer)
        self.best.attach(self.trainer)

    def step(self, engine: Engine, _) -> None:
        self.network.weight.data.fill_(engine.state.epoch)

    def validate(self, *_) -> list[dict[str, torch.Tensor]]:
        time.sleep(self.seconds)
        return [{"pred": mask(0, 1, 2, 7), "label": mask(0, 1, 2)}]  # with a speck of one voxel

    def go(self) -> "Run":
        self.trainer.run([0, 1], max_epochs=self.epochs)
        return self

    def kept_epoch(self) -> int:
        return int(read_weights(self.path / "model.pt")["weight"])


def test_the_weights_of_the_best_epoch_are_kept(tmp_path):
    run = Run(tmp_path, {1: 0.2, 2: 0.6, 3: 0.4, 4: 0.5}).go()
    assert run.kept_epoch() == 2
    assert run.best.best == {"score": 0.6, "epoch": 2, "validated": 4, "without_better": 2}


def test_later_epoch_of_equal_score_does_not_replace_earlier_ones(tmp_path):
    assert Run(tmp_path, {1: 0.2, 2: 0.6, 3: 0.6, 4: 0.6}).go().kept_epoch() == 2


def test_the_file_is_written_only_when_the_score_is_better(tmp_path):
    run = Run(tmp_path, {1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2})
    times = []
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: times.append((run.path / "model.pt").stat().st_mtime_ns)
    )
    run.go()
    assert len(times) == 4
    assert len(set(times)) == 1


def test_epoch_that_lost_a_region_is_kept_until_another_passes(tmp_path):
    run = Run(tmp_path, {1: -0.1, 2: 0.05, 3: -0.01, 4: 0.01}).go()
    assert run.kept_epoch() == 2


def test_choices_are_saved_next_to_the_weights(tmp_path):
    run = Run(tmp_path, {1: -0.25}, epochs=1).go()
    text = (run.path / "settings.yaml").read_text()
    assert '"epoch": 1, "score": 0.75, "above_floor": false, "dice_WT": 0.75' in text
    assert "# min_component_ml is in ml; of pictures, in thousands of pixels.\n" in text
    settings = yaml.safe_load(text)
    assert settings["min_component_ml"] == {"WT": 0.0}  # one patient is too few to remove anything
    assert settings["checkpoint"] == str(run.path / "model.pt")
    assert settings["channels"] == ["T1"]


def test_scores_of_the_last_and_best_validation_are_saved(tmp_path):
    run = Run(tmp_path, {1: 0.2, 2: 0.6, 3: 0.4, 4: 0.5}).go()
    for name, epoch, weights in (("validation", 4, "checkpoint.pt"), ("validation_best", 2, "model.pt")):
        told = json.loads((run.path / name / "evaluation.json").read_text())
        assert (told["about"]["epoch"], told["about"]["checkpoint"]) == (epoch, str(run.path / weights))
        assert read_cases(run.path / name / "cases.csv").query("metric == 'dice'")["value"].item() == 6 / 7


def test_a_full_disk_leaves_the_scores_of_the_validation_before(tmp_path, full_disk):
    run = Run(tmp_path, {1: 0.2}, epochs=1).go()
    before = {path.name: path.read_bytes() for path in (run.path / "validation").iterdir()}
    with full_disk(100), pytest.raises(InputError, match=r"cases\.csv cannot be written"):
        run.folder.write_scores("validation", run.best.scores.cases, 2, "checkpoint.pt")
    assert {path.name: path.read_bytes() for path in (run.path / "validation").iterdir()} == before


def test_patience_ends_training_after_enough_validations_without_improvement(tmp_path):
    run = Run(tmp_path, {1: 0.1, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.9}, epochs=9, patience=2).go()
    assert run.validated == [1, 2, 3, 4]
    assert run.kept_epoch() == 2


def test_run_without_patience_left_ends_at_once_when_resumed(tmp_path):
    run = Run(tmp_path, {}, epochs=9, patience=2)
    run.best.load_state_dict({"score": 0.5, "epoch": 2, "validated": 4, "without_better": 2})
    run.go()
    assert run.validated == []
    assert run.best.state_dict()["epoch"] == 2


def test_a_resumed_run_remembers_the_score_to_beat(tmp_path):
    first = Run(tmp_path, {1: 0.8}, epochs=1).go()
    second = Run(tmp_path, {1: 0.7, 2: 0.75}, epochs=2)
    second.best.load_state_dict(first.best.state_dict())
    second.go()
    assert second.best.best["score"] == 0.8


@pytest.mark.parametrize(
    ("epochs", "interval", "expected"), [(3, 2, [2, 3]), (4, 2, [2, 4]), (1, 5, [1]), (3, 1, [1, 2, 3])]
)
def test_the_last_epoch_is_validated_once_whatever_the_interval(tmp_path, epochs, interval, expected):
    run = Run(tmp_path, dict.fromkeys(range(1, 9), 0.5), epochs=epochs, interval=interval).go()
    assert run.validated == expected


def test_run_out_of_minutes_is_validated_before_it_ends(tmp_path):
    budget = Budget(max_epochs=1000, steps_per_epoch=2, max_minutes=0.05 / 60)
    run = Run(tmp_path, dict.fromkeys(range(1, 10_000), 0.5), epochs=10_000, interval=10_000, budget=budget).go()
    assert run.validated == [run.trainer.state.epoch]
    assert run.kept_epoch() == run.trainer.state.epoch < 10_000


def test_time_for_a_last_validation_is_reserved(tmp_path):
    run = Run(tmp_path, {1: 0.5}, epochs=1, seconds=0.1).go()
    assert 0.15 <= run.budget.reserve < 1


def test_processes_reserve_the_same_time_and_step_at_equal_rates(tmp_path, in_two_processes):
    def reserved(rank: int) -> float:
        run = Run(tmp_path / str(rank), {1: 0.5}, epochs=1, seconds=0.2 * rank).go()
        return run.budget.reserve

    first, second = in_two_processes(reserved)
    assert first == second


def test_only_the_process_that_writes_leaves_files(tmp_path):
    run = Run(tmp_path, {1: 0.5}, epochs=1, writes=False).go()
    assert not run.path.exists()
    assert run.best.best["epoch"] == 1
