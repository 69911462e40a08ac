import gzip
import itertools
import re
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bundle.cohort.recognise import read_by_patterns
from bundle.cohort.tasks import choose_task, known_tasks
from scripts.data.alignment_checks import mask_overlap
from scripts.data.case_checks import check_case, read_channels
from scripts.data.case_files import Case
from scripts.data.case_record import CaseRecord
from scripts.data.images import read_stored
from scripts.errors import InputError
from tests.made.patient import AFFINE, CELL, CELLS, IMAGES, LABEL, PICTURE, TASK, changed, save, write_patient


@pytest.fixture
def write(tmp_path):
    """`write_patient` into the folder of the test."""
    return partial(write_patient, tmp_path)


def only_problem(case, task=TASK, **options):
    (problem,) = check_case(case, task.expected(**options)).problems
    return problem


def whole_head(images):
    """The images with skull, scalp, neck and background noise, as they come from a scanner."""
    rng, brain = np.random.default_rng(1), images[0] > 0
    away = ndimage.distance_transform_edt(~brain) * 3
    x, y, z = np.indices(brain.shape)
    middle = np.argwhere(brain).mean(0)
    neck = (np.hypot(x - middle[0], y - middle[1]) < 18) & (z < middle[2])
    scalp = (away >= 7) & ((away < 14) | neck)
    heads = [image / image[brain].mean() + fat * scalp for image, fat in zip(images, (1.4, 1.4, 0.9, 1.2), strict=True)]
    noise = [np.hypot(*(0.05 * rng.standard_normal(brain.shape) for _ in range(2))) for _ in heads]
    return [np.rint(500 * (head + air)).astype(np.int16) for head, air in zip(heads, noise, strict=True)]


def test_sound_case_has_no_problem_and_a_volume_in_ml(write):
    record = check_case(write(), TASK.expected())
    assert record.problems == record.notes == []
    assert record.volume == pytest.approx(np.count_nonzero(LABEL) * 0.027)
    assert (record.shape, record.spacing, record.orientation) == ((64, 64, 64), (3.0, 3.0, 3.0), "LPS")
    assert record.counts == {value: np.count_nonzero(value == LABEL) for value in (1, 2, 3)}


@pytest.mark.parametrize("left", [5, 0.5, -1], ids=["almost nothing", "half", "all but the last byte"])
def test_a_truncated_file_is_an_error_and_never_zeros(tmp_path, left):
    path = save(tmp_path / "a.nii.gz", IMAGES[0])
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])
    with pytest.raises(InputError, match=r"a\.nii\.gz cannot be read as an image \(it is truncated"):
        read_stored(path)


def test_an_uncompressed_file_that_ends_too_early_is_an_error(tmp_path):
    path = save(tmp_path / "a.nii", IMAGES[0])
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"a\.nii cannot be read as an image .*it may be damaged"):
        read_stored(path)


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    path = save(tmp_path / "a.nii.gz", IMAGES[0])
    content = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="it may be damaged"):
        read_stored(path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.nii", "cannot be read as an image"),
        ("a.mha", "cannot be read as an image"),
        ("a.mhd", "convert it"),
        ("b.nii", "cannot be read"),
    ],
)
def test_file_that_is_not_an_image_ends_in_one_sentence(tmp_path, name, sentence):
    for written in ("a.nii", "a.mha", "a.mhd"):
        (tmp_path / written).write_text("patient,age\n" * 100)
    with pytest.raises(InputError, match=sentence):
        read_stored(tmp_path / name)


def test_nifti_2_and_scaled_integers_are_read(tmp_path):
    image = nib.Nifti2Image(IMAGES[0].astype(np.int16), AFFINE)
    image.header.set_slope_inter(2, 1)
    nib.save(image, tmp_path / "a.nii")
    image, _ = read_stored(tmp_path / "a.nii")
    np.testing.assert_allclose(image.voxels, IMAGES[0] * 2 + 1)
    assert image.spacing(3) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_single_nan_voxel_is_found(write, value):
    image = IMAGES[1].copy()
    image[30, 30, 30] = value
    assert "T1c holds 1 voxels that are NaN or infinite" in only_problem(write(changed(1, image)))


def test_a_channel_of_one_value_is_found(write):
    assert "channel T2 holds nothing but the value 7" in only_problem(write(changed(2, np.full_like(IMAGES[2], 7))))


def test_nearly_empty_channel_is_found(tmp_path):
    image = np.zeros((64, 64, 64), np.float32)
    image[1, 1, 1] = 5
    case = Case("patient", [save(tmp_path / "a.nii", image, np.diag([1.0, 1, 1, 1]))])
    assert "is 0 nearly everywhere" in only_problem(case, replace(TASK, channels=["T1"]))


@pytest.mark.parametrize(
    ("copied", "sentence"),
    [
        (IMAGES[0].astype(np.float64), "channel T1c is a copy of channel T1"),
        (IMAGES[0] * 2.5 + 10, "up to its scale, a copy"),
    ],
    ids=["as another type", "at another scale"],
)
def test_a_channel_that_is_a_copy_of_another_is_found(write, copied, sentence):
    assert sentence in only_problem(write(changed(1, copied)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [-8, 8])
def test_a_channel_shifted_by_24_mm_is_named(write, axis, voxels):
    problem = only_problem(write(changed(2, np.roll(IMAGES[2], voxels, axis))))
    assert "T2.nii.gz: channel T2 does not lie on the other channels" in problem


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [-8, 8])
def test_a_shifted_channel_is_named_in_whole_heads_too(write, axis, voxels):
    heads = whole_head(IMAGES)
    heads[2] = np.roll(heads[2], voxels, axis)
    assert "channel T2 does not lie on the other channels" in only_problem(write(heads))


def test_whole_heads_with_background_noise_are_aligned(write):
    assert check_case(write(whole_head(IMAGES)), TASK.expected()).problems == []


def test_z_scored_images_with_nonzero_background_are_checked(write):
    scored = [(image - image.mean()) / image.std() for image in IMAGES]
    assert check_case(write(scored), TASK.expected()).problems == []
    scored[3] = np.roll(scored[3], 8, 0)
    assert "FLAIR does not lie" in only_problem(write(scored))


@pytest.mark.parametrize(("data", "task"), [("brats2015", "brats2015"), ("open-ms", "open_ms")])
def test_real_channels_lie_far_from_the_threshold_on_either_side(shared_data, data, task):
    task = choose_task(task, known_tasks())
    case = read_by_patterns(shared_data(data), task).cases[0]
    channels = list(read_channels(case, task.expected(), CaseRecord(case.case)))
    for one, other in itertools.combinations(channels, 2):
        dice, distance = mask_overlap(one, other)
        assert dice > 0.998
        assert distance < 0.1
        for axis in range(3):
            step = round(25 * other.mask.shape[axis] / other.shape[axis])  # about 25 mm
            dice, distance = mask_overlap(one, replace(other, mask=np.roll(other.mask, step, axis)))
            assert dice < 0.77
            assert distance > 18


def test_two_misaligned_channels_are_both_named(tmp_path):
    files = [save(tmp_path / "a.nii", IMAGES[0]), save(tmp_path / "b.nii", np.roll(IMAGES[1], 8, 0))]
    problem = only_problem(Case("patient", files), replace(TASK, channels=["T1", "T1c"]))
    assert "channel T1c does not lie on channel T1 (a.nii)" in problem
    assert "24 mm apart" in problem


def test_a_channel_of_another_shape_is_found(write):
    assert "T1.nii.gz has shape 64 x 64 x 63, not the 64 x 64 x 64" in only_problem(
        write(changed(0, IMAGES[0][..., 1:]))
    )


def test_a_channel_of_another_orientation_is_found(write):
    turned = np.diag([3.0, 3.0, 3.0, 1.0])
    assert "T2.nii.gz has orientation RAS, not the LPS" in only_problem(write(affines=[AFFINE, AFFINE, turned, AFFINE]))


def test_displaced_channel_is_found_and_header_rounding_is_accepted(write):
    moved, rounded = AFFINE.copy(), AFFINE.copy()
    moved[0, 3], rounded[:3, 3] = 5, 0.01
    problem = only_problem(write(affines=[AFFINE, AFFINE, rounded, moved]))
    assert "FLAIR.nii.gz has another affine: by its header it lies up to 5.00 mm" in problem


def test_a_header_without_spacing_is_found(write):
    case = write()
    image = nib.Nifti1Image(IMAGES[1], None)
    image.header["sform_code"], image.header["srow_x"] = 1, (0, 0, 0, 0)
    nib.save(image, case.images[1])
    assert "T1c.nii.gz has a header without spacing" in only_problem(case)


def test_unexpected_fourth_dimension_is_found(write):
    assert "shape 64 x 64 x 64 x 2" in only_problem(write(changed(0, np.stack([IMAGES[0]] * 2, axis=-1))))


def test_channels_of_a_4d_file_are_checked_one_by_one(tmp_path):
    stacked = np.moveaxis(IMAGES.copy(), 0, -1)
    case = Case("patient", [save(tmp_path / "all.nii.gz", stacked)], save(tmp_path / "seg.nii.gz", LABEL), stacked=True)
    assert check_case(case, TASK.expected()).problems == []
    stacked[..., 3] = stacked[..., 2]
    save(tmp_path / "all.nii.gz", stacked)
    assert "channel FLAIR is a copy of channel T2" in only_problem(case)
    save(tmp_path / "all.nii.gz", stacked[..., :3])
    assert "holds 3 channels, expected 4 (T1, T1c, T2, FLAIR)" in only_problem(case)


def test_label_of_0_99999997_is_a_1_with_a_note(write):
    record = check_case(write(label=np.where(LABEL == 1, 0.99999997, LABEL)), TASK.expected())
    assert record.problems == []
    assert record.counts[1] == np.count_nonzero(LABEL == 1)
    assert record.notes == ["the label holds 0.99999997 and the like, read as 1."]


def test_label_of_one_half_is_refused(write):
    assert "not whole numbers, such as 0.5: it was interpolated" in only_problem(
        write(label=np.where(LABEL == 1, 0.5, LABEL))
    )


def test_non_numeric_label_is_refused(write):
    assert "the label holds" in only_problem(write(label=np.where(LABEL == 1, np.nan, LABEL)))


def test_value_outside_the_scheme_names_file_value_and_matching_scheme(write):
    later = replace(TASK, name="later", labels={**TASK.labels, "RC": 4})
    problem = only_problem(write(label=np.where(LABEL == 3, 4, LABEL).astype(np.uint8)), others=[TASK, later])
    assert "seg.nii.gz holds the value 4 (" in problem
    assert "not in label scheme three (NCR=1, ED=2, ET=3)" in problem
    assert "--task later knows it" in problem


def test_image_given_as_label_is_refused_without_listing_every_value(write):
    problem = only_problem(write(label=IMAGES[0].astype(np.int16)))
    assert ", ..." in problem
    assert len(problem) < 500


def test_an_empty_label_is_refused_unless_allowed(write):
    case = write(label=np.zeros_like(LABEL))
    assert "is empty: it labels no voxel" in only_problem(case)
    assert check_case(case, TASK.expected(allow_empty=True)).problems == []


def test_a_label_of_another_shape_is_refused(write):
    assert "seg.nii.gz has shape 64 x 64 x 60" in only_problem(write(label=LABEL[..., :60]))


def test_a_label_of_another_place_is_refused(write):
    assert "seg.nii.gz has orientation RAS" in only_problem(write(label_affine=np.diag([3.0, 3.0, 3.0, 1.0])))


def test_label_outside_the_brain_is_refused(write):
    label = np.zeros_like(LABEL)
    label[:6, :6, :6] = 1
    assert "100% of the label lies outside the brain" in only_problem(write(label=label))


def test_damaged_label_and_damaged_image_are_both_named(write):
    case = write()
    for path in (case.images[0], case.label):
        path.write_bytes(path.read_bytes()[:-100])
    problems = check_case(case, TASK.expected()).problems
    assert ["T1.nii.gz" in problems[0], "seg.nii.gz" in problems[1], len(problems)] == [True, True, 2]


def test_voxels_are_known_again_whatever_the_file_around_them(tmp_path):
    task = replace(TASK, channels=["T1"])
    one = check_case(Case("a", [save(tmp_path / "a.nii.gz", IMAGES[0].astype(np.int16))]), task.expected())
    two = check_case(Case("b", [save(tmp_path / "b.nii", IMAGES[0].astype(np.float64))]), task.expected())
    other = check_case(Case("c", [save(tmp_path / "c.nii", IMAGES[1])]), task.expected())
    assert one.voxels == two.voxels != other.voxels
    assert set(one.hashes.values()) != set(two.hashes.values())


# ---- pictures and slices -------------------------------------------------------------------------------------------


def picture(path, array, mode=None):
    Image.fromarray(array).convert(mode).save(path) if mode else Image.fromarray(array).save(path)
    return path


@pytest.fixture
def paint(tmp_path):
    """Writes a case of one picture and one mask."""

    def painted(image=PICTURE, label=CELL, name="image.png", label_name="mask.png", mode=None, **place):
        file = picture(tmp_path / name, image)
        return Case("a", [file], picture(tmp_path / label_name, label, mode), **place)

    return painted


def test_sound_picture_has_no_spacing_and_a_size_in_pixels(paint):
    record = check_case(paint(), CELLS.expected())
    assert record.problems == record.notes == []
    assert (record.shape, record.spacing, record.orientation) == ((30, 20), None, "")
    assert (record.volume, record.counts) == (112, {255: 112})


def test_a_slice_in_mm_has_its_size_in_square_centimetres(tmp_path):
    affine = np.diag([2.0, 5.0, 1.0, 1.0])
    files = [save(tmp_path / f"{name}.nii.gz", array.T, affine) for name, array in (("a", PICTURE), ("seg", CELL))]
    record = check_case(Case("a", files[:1], files[1]), CELLS.expected())
    assert record.problems == []
    assert (record.shape, record.spacing) == ((30, 20), (2.0, 5.0))
    assert record.volume == pytest.approx(11.2)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"label": CELL[:, 1:]}, r"mask\.png has shape 29 x 20, not the 30 x 20 of image\.png"),
        ({"mode": "RGB"}, r"mask\.png is a colour picture: a label has one value per pixel"),
        ({"label_name": "mask.jpg"}, r"mask\.jpg is a JPEG, whose compression changes the values of a label"),
        (
            {"label": np.where(CELL, 254, 0).astype(np.uint8)},
            r"mask\.png holds the value 254 \(112 pixels\), which is not",
        ),
        (
            {"label": CELL // 2 + PICTURE // 2},
            r"mask\.png holds the value .*, \.\.\., which is not in label scheme cells",
        ),
        ({"label": 0 * CELL}, r"mask\.png is empty: it labels no pixel"),
        ({"image": np.stack([PICTURE, CELL, CELL], -1)}, r"image\.png is a colour picture, expected one channel"),
        ({"image": 0 * PICTURE}, r"image\.png: channel grey holds nothing but the value 0"),
    ],
)
def test_unusable_picture_or_mask_is_reported_in_one_sentence(paint, fault, sentence):
    assert re.search(sentence, only_problem(paint(**fault), CELLS))


def test_truncated_picture_ends_in_one_sentence(paint):
    case = paint()
    case.images[0].write_bytes(case.images[0].read_bytes()[:-100])
    assert re.search(r"image\.png cannot be read to its end .*copy it again", only_problem(case, CELLS))


def test_16_bit_and_grey_rgb_pictures_equal_8_bit_grey(paint):
    deep = check_case(paint(PICTURE.astype(np.uint16) * 256), CELLS.expected())
    assert deep.problems == []
    grey = check_case(paint(np.stack([PICTURE] * 3, -1)), CELLS.expected())
    assert grey.problems == []
    assert grey.notes == ["a colour picture that is all grey is read as one channel"]
    assert grey.voxels == check_case(paint(), CELLS.expected()).voxels


def test_a_task_that_expects_empty_labels_takes_them(paint):
    task = replace(CELLS, empty_labels=True)
    record = check_case(paint(label=0 * CELL), task.expected())
    assert (record.problems, record.volume) == ([], 0)


def test_labels_fill_is_the_background_where_0_is_a_label(paint):
    task = replace(CELLS, labels={"membrane": 0, "cell": 255}, regions={"membrane": [0]}, labels_fill=255)
    record = check_case(paint(), task.expected())
    assert (record.counts, record.volume) == ({0: 600 - 112}, 488)
    assert "is empty" in only_problem(paint(label=np.full_like(CELL, 255)), task)


COLOURS = replace(CELLS, channels=["T1", "FLAIR", "T1c"])


def coloured(*channels):
    return np.stack(channels, -1).astype(np.uint8)


def test_blank_channel_is_a_note_in_slices_otherwise_a_problem(paint):
    image = coloured(PICTURE, 0 * PICTURE, PICTURE.T.reshape(20, 30))
    record = check_case(paint(image, stacked=True, slice=3), COLOURS.expected())
    assert record.problems == []
    assert record.notes == ["channel FLAIR shows nothing in these slices"]
    assert set(record.channels) == set(record.bright) == {"T1", "T1c"}
    assert "FLAIR holds nothing but the value 0" in only_problem(paint(image, stacked=True), COLOURS)


def test_a_slice_that_shows_nothing_at_all_is_a_problem(paint):
    nothing = coloured(*[0 * PICTURE] * 3)
    assert "shows nothing in any channel: leave it out" in only_problem(paint(nothing, stacked=True, slice=1), COLOURS)


def test_copied_channel_is_a_note_in_slices_otherwise_a_problem(paint):
    image = coloured(PICTURE, PICTURE, PICTURE.T.reshape(20, 30))
    record = check_case(paint(image, stacked=True, slice=3), COLOURS.expected())
    assert record.problems == []
    assert record.notes == ["channel FLAIR is a copy of channel T1 in these slices"]
    assert "FLAIR is a copy of channel T1" in only_problem(paint(image, stacked=True), COLOURS)


def test_a_grey_picture_where_colours_are_channels_is_refused(paint):
    assert re.search(r"has shape 30 x 20 .*and one of channels", only_problem(paint(stacked=True), COLOURS))
