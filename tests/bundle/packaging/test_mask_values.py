"""The names of a mask's values, as a package states them."""

from bundle.packaging.metadata import mask_values

BRATS = {
    "labels": {"NCR": 1, "ED": 2, "ET": 4},
    "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
    "labels_out": {"WT": 2, "TC": 1, "ET": 4},
}
CELLS = {"labels": {"membrane": 0, "cell": 255}, "regions": {"membrane": [0]}, "labels_out": {"membrane": 0}}


def test_values_of_regions_and_classes_have_names_without_gaps():
    expected = {"0": "background", "1": "NCR", "2": "ED", "3": "unused_3", "4": "ET"}
    assert mask_values(BRATS) == expected
    assert mask_values({**BRATS, "decision": "classes"}) == expected


def test_label_of_value_zero_is_background_only_by_regions():
    assert mask_values({**CELLS, "labels_fill": 255}) == {"0": "membrane", "255": "background"}
    assert mask_values({**CELLS, "labels_fill": 255, "decision": "classes"}) == {"0": "membrane", "255": "cell"}
