"""Example pictures show a patient's worst error in the right orientation and colours."""

import base64
import io
import json

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from bundle.analysis import evaluation
from bundle.analysis.scored_scans import open_scans
from bundle.drawing.planes import PREDICTION, TRUTH
from bundle.reporting.examples import describe_patient, illustrate_patients
from scripts.data import datalist as lists
from scripts.errors import InputError
from tests.made import rows_of, write

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Patient:
    """A head of one patient in files: two channels, a truth, a prediction, a data list and an evaluation."""

    def __init__(self, folder, truth, prediction, affine=LPS, picture=False, **scored):
        shape = truth.shape
        head = np.zeros(shape, np.float32)
        head[(slice(2, -2),) * len(shape)] = 100
        bright = head + 80 * truth
        (folder / "pred").mkdir(parents=True)
        self.folder, ending = folder, "png" if picture else "nii"
        for name, array in (("T1", head), ("FLAIR", bright), ("label", truth), ("pred/one", prediction)):
            path = folder / f"{name}.{ending}"
            if picture:
                Image.fromarray(array.astype(np.uint8).T).save(path)
            else:
                dtype = np.float32 if array.dtype == np.float32 else np.uint8
                nib.save(nib.Nifti1Image(array.astype(dtype), affine), path)
        entry = {
            "image": [f"T1.{ending}", f"FLAIR.{ending}"],
            "label": f"label.{ending}",
            "case": "one",
            "patient": "p",
        }
        self.list = {
            "channels": ["T1", "FLAIR"],
            "label_scheme": "mine",
            "labels": {"tumour": 1},
            "regions": {"WT": [1]},
            "hashes": {},
            "training": [{**entry, "split": "test"}],
        }
        (folder / "list.json").write_text(json.dumps(self.list))
        scored = {"predictions": str(folder / "pred"), "datalist": lists.datalist_hash(self.list)} | scored
        self.evaluation = evaluation.read_evaluation(
            write(folder / "scored", rows_of("one", "WT", 0.5, patient="p"), **scored)
        )

    def example(self):
        scans = open_scans(self.evaluation, str(self.folder / "list.json"))
        return illustrate_patients(self.evaluation, [describe_patient(self.evaluation, "one")], scans)[0]


def box(shape, *ranges):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*r) for r in ranges)] = 1
    return mask


def pixels(tile):
    content = base64.b64decode(tile.source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def coloured(tile, colour):
    """Where a tile looks tinted with a colour, as [row, column] positions."""
    rgb, wanted = pixels(tile), 255 * np.array(to_rgb(colour))
    tint = rgb - rgb.mean(-1, keepdims=True)
    hue = (wanted - wanted.mean()) / np.linalg.norm(wanted - wanted.mean())
    return np.argwhere((tint @ hue) > 0.93 * np.linalg.norm(tint, axis=-1).clip(25))


@pytest.fixture
def missed(tmp_path):
    """The truth has a large part at the patient's left front top that the prediction misses, and it adds a speck."""
    truth = box((40, 40, 40), (26, 34), (6, 14), (26, 34))  # in LPS: left, front, up
    return Patient(tmp_path, truth, box((40, 40, 40), (8, 10), (30, 32), (8, 10)))


def test_there_are_three_planes_each_with_a_detail(missed):
    example = missed.example()
    assert [tile.caption for tile in example.tiles] == [
        "sagittal",
        "enlarged",
        "coronal",
        "enlarged",
        "axial",
        "enlarged",
    ]


def test_false_negative_has_the_colour_of_the_truth(missed):
    axial = missed.example().tiles[5]
    assert len(coloured(axial, TRUTH)) > 20_000  # filled, not only outlined
    assert len(coloured(axial, PREDICTION)) == 0


def test_false_positive_has_the_colour_of_the_prediction(tmp_path):
    prediction = box((40, 40, 40), (10, 22), (10, 22), (10, 22))
    axial = Patient(tmp_path, box((40, 40, 40), (10, 12), (10, 12), (10, 12)), prediction).example().tiles[5]
    assert len(coloured(axial, PREDICTION)) > 20_000


def test_planes_are_radiological(missed):
    sagittal, _, coronal, _, axial, _ = missed.example().tiles
    middle = 180
    rows, columns = coloured(axial, TRUTH).mean(0)
    assert rows < middle  # the front at the top
    assert columns > middle  # the patient's left on the right
    rows, columns = coloured(coronal, TRUTH).mean(0)
    assert rows < middle
    assert columns > middle
    rows, columns = coloured(sagittal, TRUTH).mean(0)
    assert rows < middle
    assert columns < middle  # the front on the left


def test_slices_are_numbered_as_the_file_stores_them(tmp_path):
    truth = box((40, 40, 40), (26, 34), (6, 14), (26, 34))
    here = Patient(tmp_path / "a", truth, 0 * truth)
    there = Patient(tmp_path / "b", truth[:, :, ::-1], 0 * truth, affine=np.diag([-1.0, -1.0, -1.0, 1.0]))
    strips = [pixels(patient.example().tiles[4])[335:] for patient in (here, there)]
    assert np.abs(strips[0] - strips[1]).mean() > 1  # the same place, from the other end of the file


def test_another_orientation_of_the_file_gives_the_same_picture(tmp_path):
    truth = box((40, 40, 40), (26, 34), (6, 14), (26, 34))
    prediction = box((40, 40, 40), (8, 10), (30, 32), (8, 10))
    ras = np.diag([1.0, 1.0, 1.0, 1.0])
    flipped = [np.ascontiguousarray(mask[::-1, ::-1]) for mask in (truth, prediction)]
    here, there = Patient(tmp_path / "a", truth, prediction), Patient(tmp_path / "b", *flipped, affine=ras)
    for one, other in zip(here.example().tiles, there.example().tiles, strict=True):
        above = np.s_[:330]  # below is the number of the slice, as the file counts
        assert np.abs(pixels(one)[above] - pixels(other)[above]).mean() < 1


def test_shown_channel_is_the_one_where_the_tumour_is_visible(missed):
    example = missed.example()
    assert (example.region, example.channel) == ("WT", "FLAIR")
    assert "FLAIR" in example.tiles[0].words


def test_a_small_thick_speck_does_not_hide_a_large_error(tmp_path):
    truth = box((40, 40, 40), (5, 35), (5, 35), (20, 22))  # a large flat sheet
    speck = box((40, 40, 40), (30, 33), (30, 33), (4, 7))
    axial = Patient(tmp_path, truth, speck).example().tiles[4]
    assert len(coloured(axial, TRUTH)) > len(coloured(axial, PREDICTION))


def test_predictions_in_another_scheme_are_read_as_they_were_scored(tmp_path):
    truth = box((40, 40, 40), (10, 20), (10, 20), (10, 20))
    renamed = Patient(tmp_path / "renamed", truth, 3 * truth, label_map={"3": 1}).example()
    plain = Patient(tmp_path / "plain", truth, truth).example()
    assert [tile.source for tile in renamed.tiles] == [tile.source for tile in plain.tiles]
    with pytest.raises(InputError, match="holds the label 3"):
        Patient(tmp_path / "other", truth, 3 * truth).example()


def test_flat_pictures_have_one_plane(tmp_path):
    truth, prediction = box((60, 40), (10, 20), (5, 15)), box((60, 40), (10, 20), (8, 15))
    example = Patient(tmp_path, truth, prediction, picture=True).example()
    assert [tile.caption for tile in example.tiles] == ["", "enlarged"]
    rows, columns = coloured(example.tiles[1], TRUTH).mean(0)
    assert abs(rows - 180) < 60  # the detail is centred at the error
    rows, columns = coloured(example.tiles[0], TRUTH).mean(0)
    assert columns < 180  # as the picture is seen: the tumour at its left
    assert rows < 180


def test_slices_of_a_stack_are_found_by_their_page(tmp_path):
    truth, prediction = box((60, 40), (10, 20), (5, 15)), box((60, 40), (10, 20), (8, 15))
    patient = Patient(tmp_path, truth, prediction, picture=True)
    expected = [tile.source for tile in patient.example().tiles]
    entry = patient.list["training"][0] | {"label": "label.tif#1", "image": ["T1.tif#1", "FLAIR.tif#1"]}
    for name in ("T1", "FLAIR", "label", "pred/one"):
        page = Image.open(tmp_path / f"{name}.png")
        page.point(lambda value: 0).save(tmp_path / f"{name}.tif", save_all=True, append_images=[page])
    (tmp_path / "pred" / "one.png").unlink()
    (tmp_path / "pred" / "one.tif").rename(tmp_path / "pred" / "p.tif")  # named after the patient
    content = patient.list | {"training": [entry]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    patient.evaluation.record["datalist"] = lists.datalist_hash(content)
    assert [tile.source for tile in patient.example().tiles] == expected


def test_the_right_prediction_needs_no_error_to_be_drawn(tmp_path):
    truth = box((40, 40, 40), (10, 20), (10, 20), (10, 20))
    assert len(Patient(tmp_path, truth, truth).example().tiles) == 6


def test_words_alone_need_no_images(tmp_path):
    rows = rows_of("a", "WT", 0.5, volume_fn=14.2, volume_fp=0.3) + rows_of("a", "TC", 0, note="missed")
    rows += rows_of("a", "ET", 0, 0.0, note="hallucinated") + rows_of("a", "RC", 1, 0.0, note="absent")
    sentences = describe_patient(evaluation.read_evaluation(write(tmp_path, rows)), "a").sentences
    assert sentences == (
        "WT: misses 14.2 ml, adds 0.30 ml (Dice 0.50)",
        "TC: misses all 20.0 ml",
        "ET: false positive, 0.50 ml (region absent)",
        "RC: true negative",
    )


def test_a_data_list_that_was_not_scored_is_refused(missed):
    (missed.folder / "list.json").write_text(json.dumps(missed.list | {"seed": 5}))
    with pytest.raises(InputError, match="is not the data list"):
        missed.example()


def test_a_list_without_the_region_is_refused(tmp_path):
    mask = box((20, 20, 20), (5, 9), (5, 9), (5, 9))
    patient = Patient(tmp_path, mask, mask, datalist="")
    (tmp_path / "list.json").write_text(json.dumps(patient.list | {"regions": {"ET": [1]}}))
    with pytest.raises(InputError, match="has no region WT"):
        patient.example()


def test_missing_predictions_are_named(missed):
    (missed.folder / "pred" / "one.nii").unlink()
    with pytest.raises(InputError, match="holds no image"):
        missed.example()
    (missed.folder / "pred").rmdir()
    with pytest.raises(InputError, match="give their folder with --predictions"):
        missed.example()


def test_a_damaged_scan_is_named(missed):
    (missed.folder / "FLAIR.nii").write_bytes(b"half")
    with pytest.raises(InputError, match=r"FLAIR\.nii cannot be read"):
        missed.example()


def test_an_image_of_another_shape_is_named(missed):
    nib.save(nib.Nifti1Image(np.zeros((9, 40, 40), np.float32), LPS), missed.folder / "FLAIR.nii")
    with pytest.raises(InputError, match="image of case one has 9 x 40 x 40 voxels and its label 40 x 40 x 40"):
        missed.example()
