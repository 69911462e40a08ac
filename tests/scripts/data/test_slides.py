import json
from functools import partial

import numpy as np
import pytest
import tifffile
import torch
from monai.transforms import Compose

from bundle.cohort.outliers import check_cases
from scripts.data import pictures, slides
from scripts.data.case_files import Case
from scripts.data.case_record import ExpectedCase
from scripts.data.regions import LabelsToRegionsd
from scripts.data.sampler import EpochSampler
from scripts.data.slide_patches import FixedPatches, SlidePatches
from scripts.data.slides import Slide
from tests.made import refused
from tests.made.slides import list_slides

COLOURS = np.random.default_rng(0).integers(0, 255, (70, 50, 3)).astype(np.uint8)  # [y, x, colour]
EXPECTED = ExpectedCase(["R", "G", "B"], frozenset({1}), "slide (tumour=1)")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of two slides with their data list next to it."""
    folder = tmp_path_factory.mktemp("slides") / "data"
    list_slides(folder)
    return folder


@pytest.fixture
def patches(made):
    entries = [
        {"image": str(made / f"s{k}.tif"), "label": str(made / f"s{k}_mask.tif"), "case": f"s{k}"} for k in (0, 1)
    ]
    transform = Compose([LabelsToRegionsd("label", {"tumour": [1]})])
    return partial(SlidePatches, entries, 0, [64, 32], transform, [1])


@pytest.mark.parametrize("options", [{"tile": (16, 32)}, {"rowsperstrip": 9}, {}], ids=["tiles", "strips", "whole"])
def test_regions_are_parts_of_the_whole_picture(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", COLOURS, photometric="rgb", compression="zlib", **options)
    region = Slide(tmp_path / "a.tif").read((7, 13), (40, 50))
    np.testing.assert_array_equal(region, COLOURS[13:63, 7:47].transpose(2, 1, 0))


def test_a_level_is_read_at_its_own_size(made):
    slide = Slide(made / "s0.tif", level=1)
    with tifffile.TiffFile(made / "s0.tif") as tiff:
        whole = tiff.series[0].levels[1].asarray()
    assert slide.shape == (512, 512)
    np.testing.assert_array_equal(slide.read((100, 200), (30, 20)), whole[200:220, 100:130].transpose(2, 1, 0))


def test_channels_may_be_one_file_each(tmp_path):
    for k, name in enumerate("rgb"):
        tifffile.imwrite(tmp_path / f"{name}.tif", COLOURS[..., k])
    region = Slide([tmp_path / f"{name}.tif" for name in "rgb"]).read((0, 0), (50, 70))
    np.testing.assert_array_equal(region, COLOURS.transpose(2, 1, 0))


def test_tissue_is_found_and_the_background_is_not(made):
    tissue, mean, _ = Slide(made / "s0.tif").summary
    assert tissue[len(tissue) // 2, len(tissue) // 2]
    assert not tissue[0].any()
    assert tissue.mean() == pytest.approx(np.pi * 0.4**2, abs=0.02)
    assert mean.ravel()[0] < 230  # without the white background


def test_patches_are_normalised_to_the_tissue(made):
    slide = Slide(made / "s0.tif")
    tissue = slide.summary[0]
    whole = slide.read_normalised((0, 0), slide.shape)
    inside = whole[:, tissue.repeat(1024 // len(tissue), 0).repeat(1024 // len(tissue), 1)]
    np.testing.assert_allclose(inside.mean(1), 0, atol=0.1)
    np.testing.assert_allclose(inside.std(1), 1, atol=0.1)


def test_beyond_the_end_a_region_is_zero(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOURS)
    region = Slide(tmp_path / "a.tif").read_normalised((0, 0), (60, 80))
    assert region.shape == (3, 60, 80)
    assert not region[:, 50:].any()
    assert not region[:, :, 70:].any()


def test_levels_of_a_pyramid_are_not_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for step in (1, 2):
            tiff.write(COLOURS[::step, ::step], photometric="rgb", subfiletype=step - 1)
    assert pictures.count_pages(tmp_path / "a.tif") == 1
    np.testing.assert_array_equal(pictures.read_picture(tmp_path / "a.tif"), COLOURS.transpose(1, 0, 2))
    assert slides.is_slide(tmp_path / "a.tif")


def test_a_missing_level_is_refused(made):
    assert "has 3 levels, so there is no level 3" in refused(Slide, made / "s0.tif", 3)


def test_a_truncated_slide_is_refused_where_it_ends(made, tmp_path):
    content = (made / "s0.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    (record,) = check_cases([Case("a", [tmp_path / "a.tif"] * 3)], EXPECTED, workers=1)
    assert "a.tif" in record.problems[0]


def test_a_slide_without_small_levels_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4200, 4200), np.uint8), tile=(256, 256), compression="zlib")
    slide = Slide(tmp_path / "a.tif")
    with pytest.raises(slides.InputError, match="has no level of at most 4096 pixels"):
        _ = slide.summary


def test_prepare_counts_the_pixels_of_labels(made):
    entries = json.loads(made.with_suffix(".json").read_text())
    assert entries["unit"] == "pixel"
    assert [entry["case"] for entry in entries["training"]] == ["s0", "s1"]
    (record,) = check_cases([Case("s0", [made / "s0.tif"], made / "s0_mask.tif", True)], EXPECTED, workers=1)
    assert record.problems == []
    assert record.volume == (tifffile.imread(made / "s0_mask.tif") == 1).sum()


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (np.full((1024, 1024), 3, np.uint8), "holds the value 3"),
        (np.zeros((1024, 1024), np.uint8), "is empty"),
        (np.ones((300, 300), np.uint8), "has 300 x 300 pixels, the levels of its slide 1024 x 1024, 512 x 512"),
        (np.ones((1024, 1024, 3), np.uint8), "holds colours"),
    ],
)
def test_a_wrong_label_of_a_slide_is_a_problem(made, tmp_path, label, sentence):
    tifffile.imwrite(tmp_path / "mask.tif", label)
    (record,) = check_cases([Case("s0", [made / "s0.tif"], tmp_path / "mask.tif", True)], EXPECTED, workers=1)
    assert sentence in record.problems[0]


def test_a_seed_gives_the_same_patch_again(patches):
    one, other = patches(0.5), patches(0.5)
    for index in EpochSampler(cases=2, samples=6):
        first, second = one[index], other[index]
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["label"], second["label"])


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 1.0, 1.0), (0.0, 0.0, 0.4)])
def test_a_share_of_the_patches_is_centred_on_the_label(patches, share, least, most):
    dataset = patches(share)
    centred = [float(dataset[0, seed]["label"][0, 32, 16]) for seed in range(40)]
    assert least <= np.mean(centred) <= most


def test_patches_are_centred_where_an_index_says(patches, made):
    label = tifffile.imread(made / "s0_mask.tif").T
    patch = patches(0.5)[0, 1, int(np.ravel_multi_index((500, 400), label.shape))]
    np.testing.assert_array_equal(patch["label"][0], label[468:532, 384:416])
    assert patch["centre"] == np.ravel_multi_index((500, 400), label.shape)
    assert patch["image"].shape == (3, 64, 32)


def test_a_label_of_another_level_is_refused(patches):
    dataset = patches(0.5)
    dataset.level = 1
    assert "the label must have the size of the level" in refused(dataset.prepare)


def test_validation_patches_are_cases_that_never_change(patches):
    fixed = FixedPatches(patches(0.5), 3)
    assert [entry["case"] for entry in fixed.data] == ["s0_0", "s0_1", "s0_2", "s1_0", "s1_1", "s1_2"]
    assert torch.equal(fixed[4]["image"], FixedPatches(patches(0.5), 3)[4]["image"])


def test_settings_that_need_whole_images_are_refused(patches):
    assert "spacing needs whole images" in refused(patches, 0.5, {"normalize": False, "spacing": True})
