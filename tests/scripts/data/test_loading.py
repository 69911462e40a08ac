"""Loaded images equal their files, on one grid, in channel order."""

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from scripts.data import pictures
from scripts.data.images import read_stored
from scripts.data.loading import LoadImageChannelsd
from scripts.errors import InputError
from tests import made
from tests.made import save_nifti
from tests.made.gpu import needs_gpu

AFFINE = np.array([[-1.0, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1]])
SHAPE = (5, 6, 7)


def save(path, array, affine=AFFINE) -> str:
    return str(save_nifti(path, array, affine))


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Two channels of 1 and 2."""
    return [save(tmp_path / f"{n}.nii.gz", np.full(SHAPE, n, np.int16)) for n in (1, 2)]


def load(entry: dict) -> dict:
    keys = [key for key in ("image", "label") if key in entry]
    return LoadImageChannelsd(keys, channels=["T1", "T2"])(entry)


def refused(entry: dict) -> str:
    return made.refused(load, entry)


def test_channels_follow_file_order_with_the_affine(files, tmp_path):
    label = save(tmp_path / "seg.nii.gz", np.ones(SHAPE, np.uint8))
    loaded = load({"image": files, "label": label, "case": "a"})
    assert loaded["image"].shape == (2, *SHAPE)
    assert [float(channel.mean()) for channel in loaded["image"]] == [1, 2]
    assert np.allclose(loaded["image"].affine, AFFINE)
    assert loaded["label"].shape == (1, *SHAPE)
    assert loaded["image"].meta["filename_or_obj"] == files[0]
    assert loaded["case"] == "a"


def test_one_4d_file_equals_one_file_per_channel(files, tmp_path):
    stacked = save(tmp_path / "4d.nii.gz", np.stack([np.full(SHAPE, n, np.int16) for n in (1, 2)], -1))
    one, several = load({"image": stacked}), load({"image": files})
    assert np.array_equal(one["image"], several["image"])
    assert np.allclose(one["image"].affine, several["image"].affine)


def test_slices_load_as_volumes_do(tmp_path):
    slices = [save(tmp_path / f"s{n}.nii.gz", np.full((5, 6), n, np.float32)) for n in (1, 2)]
    loaded = load({"image": slices, "label": slices[0]})
    assert loaded["image"].shape == (2, 5, 6)
    assert loaded["label"].shape == (1, 5, 6)


def test_rescaled_integers_are_read_as_the_intensities_that_they_mean(files, tmp_path):
    array = np.linspace(-1, 1, np.prod(SHAPE)).reshape(SHAPE)
    image = nib.Nifti1Image(array, AFFINE)
    image.set_data_dtype(np.int16)  # so that nibabel writes a slope and whole numbers
    nib.save(image, tmp_path / "scaled.nii.gz")
    loaded = load({"image": [str(tmp_path / "scaled.nii.gz"), files[0]]})
    assert np.allclose(loaded["image"][0], array, atol=1e-4)


def test_too_few_channels_are_refused_with_what_was_expected(files):
    message = refused({"image": files[:1]})
    assert "1.nii.gz" in message
    assert "hold 1 channels: expected 2 (T1, T2)" in message


def test_a_label_of_several_channels_is_refused(files):
    assert "hold 2 channels: expected 1 (label)" in refused({"image": files, "label": files})


def test_a_missing_file_is_named(files):
    assert "gone.nii.gz does not exist" in refused({"image": [files[0], "/gone.nii.gz"]})


def test_truncated_file_is_named(files, tmp_path):
    cut = tmp_path / "cut.nii.gz"
    whole = save(tmp_path / "whole.nii.gz", np.random.default_rng(0).normal(size=SHAPE))
    cut.write_bytes((tmp_path / "whole.nii.gz").read_bytes()[:-200])
    assert f"{cut} cannot be read as an image" in refused({"image": [whole, str(cut)]})


def test_file_that_is_not_an_image_is_named(files, tmp_path):
    text = tmp_path / "text.nii.gz"
    text.write_text("hello")
    assert "text.nii.gz cannot be read as an image" in refused({"image": [files[0], str(text)]})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_voxel_is_found_before_it_ruins_training(files, tmp_path, value):
    array = np.zeros(SHAPE, np.float32)
    array[1, 2, 3] = value
    message = refused({"image": [files[0], save(tmp_path / "bad.nii.gz", array)]})
    assert "bad.nii.gz holds NaN or infinite voxels" in message


def test_channels_of_different_shape_are_refused(files, tmp_path):
    other = save(tmp_path / "other.nii.gz", np.zeros((5, 6, 8), np.int16))
    message = refused({"image": [files[0], other]})
    assert "other.nii.gz has shape (5, 6, 8)" in message
    assert "1.nii.gz has (5, 6, 7)" in message


def test_channels_on_another_grid_are_refused(files, tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] += 1  # mm
    other = save(tmp_path / "moved.nii.gz", np.zeros(SHAPE, np.int16), moved)
    assert "moved.nii.gz has another affine than" in refused({"image": [files[0], other]})


def test_a_mirrored_label_is_refused(files, tmp_path):
    mirrored = np.diag([-1.0, 1, 1, 1]) @ AFFINE
    label = save(tmp_path / "mirrored.nii.gz", np.zeros(SHAPE, np.uint8), mirrored)
    assert "mirrored.nii.gz has another affine than" in refused({"image": files, "label": label})


def test_headers_that_differ_by_rounding_are_one_grid(files, tmp_path):
    rounded = AFFINE.copy()
    rounded[2, 3] += 5e-4  # mm
    other = save(tmp_path / "rounded.nii.gz", np.zeros(SHAPE, np.int16), rounded)
    assert load({"image": [files[0], other]})["image"].shape == (2, *SHAPE)


KINDS = ["u1", "i1", "<i2", ">i2", "<u2", "<i4", "<i8", "<f4", ">f4", "<f8"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_number_becomes_the_same_float32(tmp_path, kind):
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 120
    for order in ("<", ">"):
        image = nib.Nifti1Image(array.astype(kind), AFFINE, nib.Nifti1Header(endianness=order))
        image.set_data_dtype(np.dtype(kind))
        nib.save(image, tmp_path / "a.nii.gz")
        loaded = load({"image": [str(tmp_path / "a.nii.gz")] * 2})["image"]
        assert loaded.dtype == torch.float32
        assert loaded.is_contiguous()
        assert np.array_equal(loaded, np.stack([array] * 2))


def test_the_first_of_several_damaged_files_is_named(files, tmp_path):
    bad = save(tmp_path / "bad.nii.gz", np.full(SHAPE, np.nan, np.float32))
    assert refused({"image": [bad, "/gone.nii.gz"]}).startswith(f"{bad} holds NaN")
    assert refused({"image": ["/gone.nii.gz", bad]}).startswith("/gone.nii.gz does not exist")


@pytest.mark.parametrize("workflow", ["inference", "evaluate"])
@pytest.mark.parametrize(("setting", "where"), [({}, "cpu"), ({"preprocessing_device": "@device"}, "cuda:1")])
def test_scans_are_prepared_where_the_setting_says(read_config, workflow, setting, where):
    config = read_config(f"configs/{workflow}.yaml", device="cuda:1", **setting)
    assert config.get_parsed_content("preprocessing").transforms[0].device == where


@needs_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gets_the_same_numbers(tmp_path, kind):
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 120
    name = save(tmp_path / "a.nii.gz", array.astype(kind))
    loaded = LoadImageChannelsd("image", ["T1"], device="cuda")({"image": name})["image"]
    assert loaded.is_cuda
    assert np.array_equal(loaded[0].cpu(), array)


def test_a_label_alone_can_be_loaded(tmp_path):
    label = save(tmp_path / "seg.nii.gz", np.ones(SHAPE, np.uint8))
    assert LoadImageChannelsd("label", channels=["T1"])({"label": label})["label"].shape == (1, *SHAPE)


# ---- pictures ------------------------------------------------------------------------------------------------------

GREY = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8  # [row, column]


def picture(path, array) -> str:
    Image.fromarray(array).save(path)
    return str(path)


def test_picture_colours_are_channels_with_pixels_as_unit(tmp_path):
    colours = np.stack([GREY, GREY + 1, GREY + 2], -1)
    entry = {"image": picture(tmp_path / "a.tif", colours), "label": picture(tmp_path / "a.png", GREY)}
    loaded = LoadImageChannelsd(["image", "label"], channels=["T1", "FLAIR", "T1c"], axes=2)(entry)
    assert np.array_equal(loaded["image"], np.moveaxis(colours, -1, 0).swapaxes(1, 2))
    assert np.array_equal(loaded["label"][0], GREY.T)
    assert loaded["image"].pixdim.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "stack.tif#1", "deep.png", "colours.png"])
def test_training_sees_what_prepare_has_checked(tmp_path, name):
    picture(tmp_path / "a.png", GREY)
    picture(tmp_path / "a.jpg", GREY)
    picture(tmp_path / "a.tif", GREY)
    picture(tmp_path / "deep.png", GREY.astype(np.uint16) * 250)
    picture(tmp_path / "colours.png", np.stack([GREY, GREY + 1, GREY], -1))
    pictures.write_picture(tmp_path / "stack.tif", GREY.T, GREY.T + 1)
    channels = ["R", "G", "B"] if name == "colours.png" else ["grey"]
    loaded = LoadImageChannelsd("image", channels)({"image": str(tmp_path / name)})["image"]
    checked = read_stored(tmp_path / name)[0].voxels.astype(np.float32)
    assert np.array_equal(loaded, np.moveaxis(checked.reshape(6, 5, -1), -1, 0))
    assert loaded.meta["filename_or_obj"] == str(tmp_path / name)


def test_grey_picture_saved_in_colours_is_one_channel(tmp_path):
    name = picture(tmp_path / "a.png", np.stack([GREY] * 3, -1))
    assert LoadImageChannelsd("image", channels=["grey"])({"image": [name]})["image"].shape == (1, 6, 5)
    with pytest.raises(InputError, match=r"hold 3 channels: expected 1 \(label\)"):
        LoadImageChannelsd("label", channels=["grey"])({"label": name})


def test_picture_with_other_colours_than_the_channels_is_refused(tmp_path):
    name = picture(tmp_path / "a.png", np.stack([GREY, GREY + 1, GREY], -1))
    assert "hold 3 channels: expected 2 (T1, T2)" in refused({"image": name})


def test_reason_for_an_unreadable_picture_is_given_once(tmp_path):
    Image.fromarray(GREY).convert("P").save(tmp_path / "a.png")
    message = refused({"image": [str(tmp_path / "a.png")] * 2})
    assert message.startswith(f"{tmp_path / 'a.png'} has colour mode P, whose values are not intensities: save")


@pytest.mark.parametrize(("shape", "axes"), [((5, 6), 3), ((5, 6, 7), 2)])
def test_a_network_of_other_axes_refuses_the_image(tmp_path, shape, axes):
    name = save(tmp_path / "a.nii.gz", np.ones(shape, np.float32))
    with pytest.raises(InputError, match=rf"a\.nii\.gz has {len(shape)} axes, the network expects {axes}"):
        LoadImageChannelsd("image", ["T1"], axes=axes)({"image": name})


def test_real_slices_load_as_three_channels(shared_data):
    case = sorted(path for path in (shared_data("lgg") / "kaggle_3m").iterdir() if path.is_dir())[0]
    image, label = (str(case / f"{case.name}_11{kind}.tif") for kind in ("", "_mask"))
    loaded = LoadImageChannelsd(["image", "label"], ["T1", "FLAIR", "T1c"])({"image": image, "label": label})
    assert loaded["image"].shape == (3, 256, 256)
    flair, inside = loaded["image"][1], loaded["label"][0] > 0
    assert flair[inside].mean() > 1.3 * flair[(flair > 30) & ~inside].mean()  # the tumour is bright there


def test_real_scans_load_with_their_label(shared_data):
    folder = shared_data("brats2015") / "train"
    case = sorted(path for path in folder.iterdir() if path.is_dir())[0]
    images = [str(next(case.glob(f"{name}_*.nii*"))) for name in ("Flair", "T1c")]
    loaded = LoadImageChannelsd(["image", "label"], channels=["FLAIR", "T1c"])(
        {"image": images, "label": str(next(case.glob("OTMultiClass*")))}
    )
    assert loaded["image"].shape[0] == 2
    assert loaded["image"].shape[1:] == loaded["label"].shape[1:]


PATTERNS = {"T1": ["{case}/{case}_t1.nii*"], "T2": ["{case}/{case}_t2.nii*"]}


def load_named(image) -> dict:
    return LoadImageChannelsd("image", channels=["T1", "T2"], channel_files=PATTERNS)({"image": image})


@pytest.fixture
def case(tmp_path) -> dict[str, str]:
    """A case's folder with a file of 1 for T1 and one of 2 for T2, and its label."""
    folder = tmp_path / "A"
    folder.mkdir()
    save(folder / "A_seg.nii.gz", np.zeros(SHAPE, np.uint8))
    return {
        name: save(folder / f"A_{name.lower()}.nii.gz", np.full(SHAPE, n, np.int16))
        for n, name in ((2, "T2"), (1, "T1"))
    }


def test_folder_is_a_case_with_files_in_channel_order(case, tmp_path):
    loaded = load_named(str(tmp_path / "A"))
    assert [float(channel.mean()) for channel in loaded["image"]] == [1, 2]
    assert loaded["result_extension"] == ".nii.gz"  # without which MONAI Label writes no mask


@pytest.mark.parametrize("channel", ["T1", "T2"])
def test_file_of_one_channel_finds_the_other_channels(case, channel):
    loaded = load_named(case[channel])
    assert [float(channel.mean()) for channel in loaded["image"]] == [1, 2]
    assert "result_extension" not in loaded


def test_cases_may_lie_side_by_side_in_one_folder(tmp_path):
    for number, name in ((1, "A_t1"), (2, "A_t2"), (3, "B_t1"), (4, "B_t2")):
        save(tmp_path / f"{name}.nii.gz", np.full(SHAPE, number, np.int16))
    loaded = load_named(str(tmp_path / "B_t2.nii.gz"))
    assert [float(channel.mean()) for channel in loaded["image"]] == [3, 4]


def test_a_file_of_all_channels_is_no_channels_file(case, tmp_path):
    stacked = save(tmp_path / "A" / "A.nii.gz", np.stack([np.full(SHAPE, n, np.int16) for n in (5, 6)], -1))
    assert [float(channel.mean()) for channel in load_named(stacked)["image"]] == [5, 6]


def test_list_whose_names_show_another_order_is_refused(case):
    with pytest.raises(InputError, match=r"A_t2.nii.gz is in the place of channel T1, but is named like T2"):
        load_named([case["T2"], case["T1"]])


def test_list_with_uninformative_names_is_read_in_order(files):
    assert [float(channel.mean()) for channel in load_named(files[::-1])["image"]] == [2, 1]


def test_channel_not_on_the_grid_of_the_others_is_named(case, tmp_path):
    (tmp_path / "A" / "A_t2.nii.gz").unlink()
    for image in (case["T1"], str(tmp_path / "A")):
        with pytest.raises(InputError, match=r"case A lacks channel T2: expected A/A_t2.nii\*, found T1"):
            load_named(image)


def test_a_folder_without_a_case_or_with_several_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must hold the files of one case .* but holds 0: none"):
        load_named(str(tmp_path))
    for name in ("A_t1", "A_t2", "B_t1", "B_t2"):
        save(tmp_path / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
    with pytest.raises(InputError, match=r"but holds 2: A, B"):
        load_named(str(tmp_path))
