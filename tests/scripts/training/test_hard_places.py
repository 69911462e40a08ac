"""Places where the network was wrong or uncertain are drawn again, and forgotten in time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import run
from monai.engines.utils import IterationEvents

from scripts.data.sampler import EpochSampler
from scripts.errors import InputError
from scripts.training.hard_places import HardPlaces, count_false_positives, mean_entropy

CASES = SimpleNamespace(data=[{"case": name} for name in "abcd"])


def score_of(probabilities: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return probabilities.flatten(1).mean(1)


class Steps:
    """A trainer whose steps have patches of given scores per channel at given centres."""

    def __init__(self, places: HardPlaces) -> None:
        self.engine = Engine(lambda *_: None)
        self.engine.register_events(*IterationEvents)
        self.engine.state.iteration = 0
        places.attach(self.engine)

    def step(self, epoch: int, *patches: tuple[str, int, list[float]]) -> None:
        self.engine.state.epoch, self.engine.state.iteration = epoch, self.engine.state.iteration + 1
        self.engine.state.batch = {"case": [p[0] for p in patches], "centre": torch.tensor([p[1] for p in patches])}
        logits = [torch.tensor(p[2]).logit()[:, None, None].expand(-1, 2, 2) for p in patches]
        self.engine.state.output = [{"pred": pred, "label": torch.zeros_like(pred)} for pred in logits]
        self.engine.fire_event(IterationEvents.MODEL_COMPLETED)


def drawn(places: HardPlaces, case: int) -> list[int | None]:
    return [places.centre(case, np.random.default_rng(seed)) for seed in range(300)]


def test_before_any_step_all_is_as_usual():
    places = HardPlaces(CASES, score_of)
    assert places.weights().tolist() == [1, 1, 1, 1]
    assert drawn(places, 0) == [None] * 300


def test_share_of_patches_is_cut_at_places_by_score():
    places = HardPlaces(CASES, score_of, share=0.4)
    Steps(places).step(1, ("a", 10, [0.6]), ("a", 11, [0.2]), ("c", 12, [0.2]))
    assert places.weights() == pytest.approx([0.6 + 1.6 * 0.8, 0.6, 0.6 + 1.6 * 0.2, 0.6])
    found = [(case, places.centre(case, np.random.default_rng(n))) for n, (case, _) in enumerate(
        EpochSampler(4, 2000, weights=places.weights)
    )]  # fmt: skip
    shares = [np.mean([pair == place for pair in found]) for place in [(0, 10), (0, 11), (2, 12)]]
    assert shares == pytest.approx([0.24, 0.08, 0.08], abs=0.03)


class Base:
    """Draws the second case three times as often, at voxel 7."""

    def weights(self) -> list[float]:
        return [1.0, 3.0, 1.0, 1.0]

    def centre(self, case: int, _: np.random.Generator) -> int | None:
        return 7 if case == 1 else None


def test_other_patches_are_chosen_by_the_base():
    places = HardPlaces(CASES, score_of, share=0.4, base=Base())
    assert places.weights() == pytest.approx([2 / 3, 2, 2 / 3, 2 / 3])
    Steps(places).step(1, ("a", 10, [0.6]))
    assert places.weights() == pytest.approx([0.4 + 1.6, 1.2, 0.4, 0.4])
    found = [(case, places.centre(case, np.random.default_rng(n))) for n, (case, _) in enumerate(
        EpochSampler(4, 2000, weights=places.weights)
    )]  # fmt: skip
    shares = [np.mean([pair == place for pair in found]) for place in [(0, 10), (0, None), (1, 7)]]
    assert shares == pytest.approx([0.4, 0.1, 0.3], abs=0.03)


def test_resumed_places_know_the_weights_of_their_base():
    places, again = (HardPlaces(CASES, score_of, share=0.4, base=Base()) for _ in range(2))
    Steps(places).step(1, ("a", 10, [0.6]))
    places.weights()
    again.load_state_dict(places.state_dict())
    assert drawn(again, 0) == drawn(places, 0)


def test_each_region_gets_the_same_share_of_places():
    places = HardPlaces(CASES, score_of, share=0.5)
    Steps(places).step(1, ("a", 10, [0.9, 0.0]), ("b", 11, [0.0, 0.001]))
    assert places.weights()[:2] == pytest.approx([1.5, 1.5])


def test_place_drawn_again_gets_its_new_score():
    places = HardPlaces(CASES, score_of)
    steps = Steps(places)
    steps.step(1, ("a", 10, [0.9]), ("b", 11, [0.9]))
    places.weights()
    steps.step(2, ("a", 10, [0.0]))
    assert places.weights()[0] < 1 < places.weights()[1]


def test_old_places_are_forgotten_and_few_are_kept():
    places = HardPlaces(CASES, score_of, keep=1, max_age=2)
    steps = Steps(places)
    steps.step(1, ("a", 10, [0.9]))
    steps.step(2, ("b", 11, [0.5]), ("c", 12, [0.4]))
    assert [weight > 1 for weight in places.weights()] == [True, False, False, False]  # the highest score
    steps.step(3, ("d", 13, [0.1]))
    assert [weight > 1 for weight in places.weights()] == [False, False, False, True]  # epoch 1 is too old


def test_unknown_centres_and_broken_scores_are_left_out():
    places = HardPlaces(CASES, score_of)
    Steps(places).step(1, ("a", -1, [0.9]), ("b", 11, [float("nan")]))
    assert places.weights().tolist() == [1, 1, 1, 1]


def test_resumed_epoch_ends_with_the_same_places():
    whole, broken = HardPlaces(CASES, score_of), HardPlaces(CASES, score_of)
    for places in (whole, broken):
        Steps(places).step(1, ("a", 10, [0.9]), ("b", 11, [0.5]))
    resumed = HardPlaces(CASES, score_of)
    resumed.load_state_dict(broken.state_dict())
    for places in (whole, resumed):
        places.weights()
        Steps(places).step(2, ("a", 10, [0.1]))
    assert whole.weights().tolist() == resumed.weights().tolist()
    assert whole.state_dict() == resumed.state_dict()


def test_processes_share_their_places(in_two_processes):
    def weights(rank: int) -> list[float]:
        places = HardPlaces(CASES, score_of)
        Steps(places).step(1, ("ab"[rank], 10, [0.5]))
        places.state_dict()  # as a checkpoint does
        return places.weights().tolist()

    first, second = in_two_processes(weights)
    assert first == second
    assert first[0] == first[1] > first[2]


def test_scores_are_of_false_positives_and_of_uncertain_voxels():
    probabilities = torch.tensor([[0.9, 0.9, 0.5, 0.0], [0.0, 1.0, 1.0, 1.0]]).reshape(2, 2, 2)
    target = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 1]]).reshape(2, 2, 2)
    assert count_false_positives(probabilities, target).tolist() == [0.25, 0.0]
    assert mean_entropy(probabilities, target).tolist() == pytest.approx([0.336, 0.0], abs=0.001)


def test_share_of_all_patches_is_refused():
    with pytest.raises(InputError, match=r"hard_share is 1\.0: expected a number from 0 to less than 1"):
        HardPlaces(CASES, score_of, share=1.0)


@pytest.mark.parametrize("recipe", ["hard_negatives", "uncertainty"])
def test_training_finds_places_and_resumes_with_them(recipe, cohort, tmp_path, at_root):
    def train(name: str, **settings) -> dict:
        run(
            "training", run_dir=str(tmp_path / name), datalist=str(cohort.datalist),
            config_file=["configs/train.yaml", "configs/tasks/phantom.yaml", f"configs/recipes/{recipe}.yaml"],
            dataset_dir=str(cohort.dataset_dir), patch_size=[16, 16, 16], filters=[4, 8, 8], device="cpu",
            steps_per_epoch=4, learning_rate=0.0, overlap=0.0, val_interval=9, **settings,
        )  # fmt: skip
        return torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)

    whole = train("whole", max_epochs=3)
    train("broken", max_epochs=1)
    resumed = train("broken", max_epochs=3, resume=str(tmp_path / "broken"))
    assert whole["hard_places"]["places"]
    for name in ("hard_places", "sampler"):
        assert whole[name] == resumed[name]
