"""Contact sheets show the right slice in the right orientation and colours."""

import weakref

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from bundle.cohort.phantom_anatomy import CHANNELS, KINDS, make_patient
from bundle.drawing.slices import (
    OKABE_ITO,
    draw_contact_sheet,
    draw_predictions,
    evenly_spaced,
    format_volume,
    intensity_window,
    label_colours,
    tumour_slice,
)
from scripts.errors import InputError

LABELS = {"NCR": 1, "ED": 2, "ET": 3}


def patient(k: int = 0, dims: int = 3, **more) -> dict:
    images, label = make_patient(np.random.default_rng(k), 32, 6.0, dims, KINDS[k % 4])
    flip = np.s_[..., ::-1, ::-1, :] if dims == 3 else np.s_[..., ::-1, ::-1]  # from LPS to RAS
    return {"case": f"patient {k}", "image": images[flip], "label": label[flip], "spacing": (6.0,) * dims, **more}


def one_square(label_value: int = 0) -> dict:
    """A grey head with a bright square at the patient's right front, labelled `label_value` there."""
    image = np.zeros((1, 40, 40, 3), np.float32)
    image[0, 5:35, 5:35] = 1 + np.arange(30)[None, :, None] / 30
    image[0, 24:32, 24:32] = 9
    return {"case": "square", "image": image, "label": label_value * (image[0] == 9), "spacing": (1.0, 1.0, 1.0)}


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def near(picture: np.ndarray, colour: str, by: int = 12) -> np.ndarray:
    return np.abs(picture - 255 * np.array(to_rgb(colour))).max(-1) <= by


def test_the_slice_shown_is_the_one_with_most_tumour():
    label = np.zeros((8, 8, 5), np.uint8)
    label[2, 2, 1] = 1
    label[2:5, 2, 3] = 2
    assert tumour_slice(label) == 3


def test_foreground_is_what_differs_from_the_fill_value():
    label = np.full((8, 8, 3), 255)
    label[2:5, 2, 1] = 0
    assert tumour_slice(label, background=255) == 1
    assert format_volume(label, (10.0, 10.0, 10.0), background=255) == "3.0 ml"


def test_sizes_are_in_pixels_where_there_is_no_spacing(tmp_path):
    assert format_volume(np.eye(5), None) == "5 px"
    flat = {**patient(dims=2), "spacing": None}
    draw_contact_sheet([flat], tmp_path / "a.png", CHANNELS, LABELS)
    assert pixels(tmp_path / "a.png").any()


def test_without_tumour_the_middle_slice_is_shown():
    assert tumour_slice(np.zeros((8, 8, 5))) == 2
    assert tumour_slice(None, 9) == 4


def test_the_patients_right_front_is_at_the_upper_left(tmp_path):
    draw_contact_sheet([one_square(1)], tmp_path / "a.png", ["T1"], LABELS)
    picture = pixels(tmp_path / "a.png")[98:, 190:]  # the one cell, below the legend and past the titles
    rows, columns = np.nonzero(near(picture, label_colours(LABELS)[1]))
    assert rows.max() < picture.shape[0] / 2
    assert columns.max() < picture.shape[1] / 2


def test_background_does_not_set_the_black_level():
    image = np.zeros((20, 20, 20))
    image[5:10] = np.linspace(100, 200, 2000).reshape(5, 20, 20)
    assert intensity_window(image) == pytest.approx((101, 199))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 4)), np.ones((4, 4, 4))])
def test_constant_image_has_a_grey_window(image):
    low, high = intensity_window(image)
    assert low < high


def test_volumes_carry_their_unit():
    label = np.ones((10, 10, 10))
    assert format_volume(label, (1.0, 1.0, 3.0)) == "3.0 ml"
    assert format_volume(label[..., 0], (2.0, 2.0)) == "4.0 cm²"


def test_cohort_picture_spans_first_to_last_case():
    chosen = evenly_spaced(list(range(1251)))
    assert len(chosen) == 24
    assert (chosen[0], chosen[-1]) == (0, 1250)
    assert set(np.diff(chosen)) <= {54, 55}
    assert evenly_spaced([1, 2, 3]) == [1, 2, 3]
    assert evenly_spaced([]) == []


def test_no_two_labels_share_a_colour():
    assert len(set(label_colours({name: value for value, name in enumerate("abcdefg")}).values())) == 7
    assert label_colours({"ET": 4, "NCR": 1, "ED": 2}) == dict(zip((1, 2, 4), OKABE_ITO[:3], strict=True))


def test_background_is_black_in_normalised_images_too(tmp_path):
    """Without a label, so that only greys are drawn: the head as it is, and moved below 0 on a background of 0."""
    case = {**one_square(), "label": None}
    moved = {**case, "image": np.where(case["image"] == 0, 0, case["image"] - 5)}
    draw_contact_sheet([case], tmp_path / "a.png", ["T1"], LABELS)
    draw_contact_sheet([moved], tmp_path / "b.png", ["T1"], LABELS)
    assert np.abs(pixels(tmp_path / "a.png") - pixels(tmp_path / "b.png")).max() <= 1


def test_every_label_is_outlined_in_every_channel(tmp_path):
    draw_contact_sheet([patient(0)], tmp_path / "a.png", CHANNELS, LABELS)
    picture = pixels(tmp_path / "a.png")[98:, 190:]
    for colour in label_colours(LABELS).values():
        columns = np.array_split(near(picture, colour, by=60), 4, axis=1)
        assert all(column.any() for column in columns)


def test_label_and_prediction_share_colours_in_separate_columns(tmp_path):
    case = one_square(3)
    draw_predictions([{**case, "prediction": np.zeros_like(case["label"])}], tmp_path / "missed.png", ["T1"], LABELS)
    draw_predictions([{**case, "prediction": case["label"]}], tmp_path / "found.png", ["T1"], LABELS)
    painted = 0.75 * 255 * np.array(to_rgb(label_colours(LABELS)[3])) + 0.25 * 255  # over the white square
    for name, columns in (("missed", [False, True, False]), ("found", [False, True, True])):
        picture = pixels(tmp_path / f"{name}.png")[98:, 190:]
        hit = np.abs(picture - painted).max(-1) <= 12
        assert [bool(part.any()) for part in np.array_split(hit, 3, axis=1)] == columns


def test_cases_load_one_at_a_time_up_to_one_sheet(tmp_path):
    images = []

    def load(k):
        assert all(image() is None for image in images[:-1])  # the last one is still in the loop's hand
        case = one_square(1)
        images.append(weakref.ref(case["image"]))
        return case

    draw_contact_sheet(map(load, range(1000)), tmp_path / "a.png", ["T1"], LABELS, of=1000)
    assert len(images) == 24


def test_long_sequence_is_sampled_over_one_sheet(tmp_path):
    cases = [{**one_square(1), "case": str(k)} for k in range(60)]
    draw_contact_sheet(cases, tmp_path / "all.png", ["T1"], LABELS)
    draw_contact_sheet(evenly_spaced(cases), tmp_path / "some.png", ["T1"], LABELS, of=60)
    assert np.array_equal(pixels(tmp_path / "all.png"), pixels(tmp_path / "some.png"))


def test_cases_of_every_shape_are_drawn_within_a_bounded_picture(tmp_path):
    """Two axes, a list of channels, no label, an empty label, thick slices."""
    flat = patient(1, dims=2, prediction=None)
    cases = [
        {**flat, "image": list(flat["image"])},
        {**patient(2), "label": None, "prediction": None},
        {**patient(3), "label": np.zeros((32, 32, 32), int), "prediction": np.zeros((32, 32, 32), int)},
        {**patient(4), "spacing": (6.0, 1.0, 6.0)},
    ]
    draw_contact_sheet(cases, tmp_path / "sheet.png", CHANNELS, LABELS, title="all kinds")
    draw_predictions(cases, tmp_path / "prediction.png", CHANNELS, LABELS, title="all kinds")
    for name in ("sheet", "prediction"):
        high, wide, _ = pixels(tmp_path / f"{name}.png").shape
        assert high < 800
        assert wide < 2000


def test_empty_picture_is_reported_and_not_written(tmp_path):
    with pytest.raises(InputError, match="no case to draw"):
        draw_contact_sheet([], tmp_path / "a.png", CHANNELS, LABELS)
    assert not list(tmp_path.iterdir())


def test_unwritable_picture_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        draw_contact_sheet([one_square(1)], tmp_path / "file" / "a.png", ["T1"], LABELS)
