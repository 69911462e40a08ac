"""Class weights are typed, or counted in the training cases alone and kept with the run."""

import math

import nibabel as nib
import pytest
import torch
from ignite.engine import Engine

from scripts.data.datalist import read_datalist
from scripts.data.imperfect_labels import IGNORED
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.training.class_weights import ClassWeights, CountClasses

CLASSES = ["background", "NCR", "ET"]


class Cases(list):
    """Prepared training cases, one-hot labels of 10 voxels each, by their number of voxels per class."""

    @property
    def cases(self) -> "Cases":
        return self

    def stored_case(self, number: int) -> dict:
        place = torch.arange(len(CLASSES)).repeat_interleave(torch.tensor(self[number]))
        return {"label": torch.nn.functional.one_hot(place, len(CLASSES)).T.to(torch.uint8)}


def found(weights: object, voxels: list[list[int]], known: dict | None = None) -> list[float]:
    """The weights when training has started."""
    made, engine = ClassWeights(weights, CLASSES), Engine(lambda *_: None)
    CountClasses(made, Cases(voxels), lambda _, measure: known or measure()).attach(engine)
    engine.run([0])
    return made.tensor.tolist()


def test_counted_weights_are_inverse_to_the_share_of_voxels():
    # of 20 voxels 15, 4 and 1
    weights = found("inverse_frequency", [[9, 1, 0], [6, 3, 1]])
    assert weights == pytest.approx([20 / 3 / 15, 20 / 3 / 4, 20 / 3 / 1])
    assert weights[0] * 15 + weights[1] * 4 + weights[2] == pytest.approx(20)  # 1 in the mean over voxels


def test_class_of_no_case_has_no_weight():
    assert found("inverse_frequency", [[8, 2, 0]]) == pytest.approx([10 / 2 / 8, 10 / 2 / 2, 0])


def test_ignored_voxels_and_further_raters_do_not_change_the_shares(monkeypatch):
    expected = found("inverse_frequency", [[6, 3, 1]])
    plain = Cases.stored_case

    def of_two_raters(self, number: int) -> dict:
        label = plain(self, number)["label"]
        ignored = torch.full((len(CLASSES), 5), IGNORED, dtype=torch.uint8)
        return {"label": torch.cat([label, ignored], 1).repeat(2, 1)}

    monkeypatch.setattr(Cases, "stored_case", of_two_raters)
    assert found("inverse_frequency", [[6, 3, 1]]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "expected"), [(None, [1, 1, 1]), ({"background": 0, "NCR": 1, "ET": 2.5}, [0, 1, 2.5])]
)
def test_typed_weights_are_not_counted(weights, expected):
    assert found(weights, [[9, 1, 0]]) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        "inverse",
        {},
        {"NCR": 1, "ET": 4},
        {"ET": 4, "NCR": 1, "background": 1},
        {"background": 1, "NCR": -1, "ET": 4},
        {"background": 1, "NCR": math.nan, "ET": 4},
        {"background": 1, "NCR": "1", "ET": 4},
    ],
)
def test_wrong_weights_are_refused_with_the_classes(wrong):
    with pytest.raises(InputError, match=r"expected inverse_frequency, null, or .* background, NCR, ET, in this order"):
        found(wrong, [[9, 1, 0]])


def test_weights_known_to_the_run_are_not_counted_again():
    known = {"background": 1.0, "NCR": 2.0, "ET": 3.0}
    assert found("inverse_frequency", [[9, 1, 0]], known) == [1, 2, 3]


def test_recipe_counts_training_cases_alone_and_keeps_weights(small_train, cohort, tmp_path):
    config = small_train("configs/recipes/softmax_dice_ce.yaml", class_weights="inverse_frequency", fold=1)
    (tmp_path / "run").mkdir()
    counted = config.get_parsed_content("counted_weights")
    engine = Engine(lambda *_: None)
    (counting,) = (one for one in config.get_parsed_content("train::handlers") if isinstance(one, CountClasses))
    counting.attach(engine)
    engine.run([0])
    kept = read_mapping(tmp_path / "run" / "settings.yaml")["class_weights"]
    assert counted.tensor.tolist() == pytest.approx([*kept.values()])
    entries = read_datalist(cohort.datalist)["training"]
    files = [cohort.dataset_dir / entry["label"] for entry in entries if entry.get("fold") not in (None, 1)]
    labels = [nib.load(file).get_fdata() for file in files]
    voxels = [sum((label == value).sum() for label in labels) for value in config["labels"].values()]
    assert len(files) == 3
    assert kept["ET"] / kept["NCR"] == pytest.approx(voxels[0] / voxels[-1])
