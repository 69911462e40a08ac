"""Consensus masks, and models compared with the range of the raters."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from bundle.analysis.agreement_summary import compare_model_with_raters
from bundle.analysis.consensus import majority_mask, staple_mask
from bundle.analysis.rater_pairs import COLUMNS
from bundle.reporting.agreement_sentences import model_verdicts

PEOPLE = ["anna", "ben", "carla"]


def balls(*centres_and_radii) -> np.ndarray:
    grid = np.indices((60, 60, 40))
    squares = [sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True)) for centre, _ in centres_and_radii]
    return np.array([square <= radius**2 for square, (_, radius) in zip(squares, centres_and_radii, strict=True)])


def staple_on_everything(masks: np.ndarray) -> np.ndarray:
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    return sitk.GetArrayFromImage(sitk.STAPLE(images, 1.0)) > 0.5


def test_majority_is_more_than_half_and_a_tie_is_none():
    masks = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], bool)
    assert majority_mask(masks[:3]).tolist() == [True, True, False, False]
    assert majority_mask(masks).tolist() == [True, False, False, False]


def test_staple_outvotes_one_bad_rater():
    masks = balls(((30, 30, 20), 10), ((31, 30, 20), 10), ((30, 31, 20), 10), ((44, 30, 20), 10))
    found, bad = staple_mask(masks), masks[3] & ~masks[:3].any(axis=0)
    assert 2 * (found & masks[0]).sum() / (found.sum() + masks[0].sum()) > 0.95
    assert not (found & bad).any()


def test_background_has_no_effect_for_equally_good_raters():
    masks = balls(((30, 30, 20), 10), ((32, 30, 20), 10), ((30, 32, 20), 10))
    assert np.array_equal(staple_mask(masks), staple_on_everything(masks))


def test_staple_ignores_background_which_would_favour_the_generous_rater():
    masks = balls(((30, 30, 20), 12), ((31, 30, 20), 12), ((30, 31, 20), 11.5), ((30, 30, 20), 16))
    inside, everywhere, voted = (
        int(found.sum()) for found in (staple_mask(masks), staple_on_everything(masks), majority_mask(masks).sum())
    )
    assert voted < inside < everywhere < masks[3].sum()


@pytest.mark.parametrize("value", [False, True])
def test_raters_who_all_draw_the_same_have_that_as_consensus(value):
    masks = np.zeros((3, 8, 8), bool)
    masks[:, 2:5, 2:5] = value
    assert np.array_equal(staple_mask(masks), masks[0])
    assert np.array_equal(majority_mask(masks), masks[0])


def table(model, between=(0.80, 0.84, 0.88), images=20, noise=0.01) -> pd.DataFrame:
    """Dice of three pairs of raters and of the model with each rater, with noise from image to image."""
    random = np.random.default_rng(0)
    rows = []
    pairs = [("anna", "ben"), ("anna", "carla"), ("ben", "carla"), *(("model", rater) for rater in PEOPLE)]
    for number in range(images):
        for (first, second), dice in zip(pairs, [*between, *[model] * 3], strict=True):
            value = dice + random.normal(0, noise)
            row = {"image": f"X{number}", "first": first, "second": second, "dice": value, "nsd_2mm": value}
            rows.append({**dict.fromkeys(COLUMNS, 0.5), **row})
    return pd.DataFrame(rows)


def words(model, **options) -> str:
    summary = {
        "raters": PEOPLE,
        "units": {"length": "mm", "size": "ml"},
        "model": {
            "like_a_rater": {
                metric: compare_model_with_raters(table(model, **options), PEOPLE, metric)
                for metric in ("dice", "nsd_2mm")
            }
        },
    }
    return model_verdicts(summary)[0]


def test_model_agreeing_as_raters_do_is_within_their_range():
    found = compare_model_with_raters(table(0.84, noise=0.05), PEOPLE, "dice")
    assert found["place"] == "within"
    assert found["interval"][0] < 0 < found["interval"][1]
    assert found["rater_means"] == pytest.approx({"anna": 0.82, "ben": 0.84, "carla": 0.86}, abs=0.02)
    assert "The interval includes 0, so this sample is inconclusive" in words(0.84, noise=0.05)
    assert "With 20 images the interval is too narrow" in words(0.84, noise=0.05)


def test_model_unlike_the_raters_is_outside_their_range():
    found = compare_model_with_raters(table(0.6), PEOPLE, "dice")
    assert found["place"] == "below"
    assert found["interval"][1] < 0
    assert found["difference"] == pytest.approx(-0.24, abs=0.01)
    assert "below the raters' own range (their own means: 0.82" in words(0.6)
    assert "The interval excludes 0: the model agrees less" in words(0.6)


def test_model_that_averages_the_raters_is_not_called_better():
    assert compare_model_with_raters(table(0.95), PEOPLE, "dice")["place"] == "above"
    assert "that does not make it better than they are" in words(0.95)


def test_a_few_images_show_nothing_either_way():
    assert compare_model_with_raters(table(0.6, images=4), PEOPLE, "dice")["interval"] is None
    assert "No interval for fewer than 5 images: inconclusive." in words(0.6, images=4)


def test_many_images_are_not_called_few():
    assert "too narrow" not in words(0.84, images=60)


def test_two_raters_have_no_range():
    rows = table(0.84)
    found = compare_model_with_raters(rows[~rows.isin(["carla"]).any(axis=1)], PEOPLE[:2], "dice")
    assert (found["place"], found["rater_means"]) == (None, {})
    assert found["interval"] is not None


def test_only_images_drawn_by_all_raters_rank_a_model():
    rows = table(0.84)
    hard = (rows["image"] == "X0") & ((rows["first"] == "carla") | (rows["second"] == "carla"))
    found = compare_model_with_raters(rows[~hard], PEOPLE, "dice")
    assert (found["images"], found["complete_images"]) == (20, 19)


def test_model_without_common_images_is_reported():
    found = compare_model_with_raters(table(0.84).query("first != 'model'"), PEOPLE, "dice")
    assert found["images"] == 0
    assert found["model"] is None
