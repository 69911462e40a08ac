"""Does a scan of any kind become a mask on its own grid, and is nothing overwritten, skipped or half-written?"""

import json
import os
import shutil
import threading

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import Dataset, MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Lambdad
from PIL import Image

from scripts.data import pictures
from scripts.errors import InputError
from scripts.inference.mask_saver import MaskSaver, mask_path
from scripts.inference.prefetch import OneAhead
from scripts.inference.scans import not_yet_done, scans
from scripts.inference.sliding_window import AIR, MirroringSlidingWindowInferer, largest_window

# ---- mirror images -------------------------------------------------------------------------------------------------


def lopsided(dims: int) -> torch.nn.Module:
    """A small network whose weights are not symmetric."""
    torch.manual_seed(0)
    convolution = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims]
    return torch.nn.Sequential(convolution(2, 4, 3, padding=1), torch.nn.ReLU(), convolution(4, 3, 3, padding=1)).eval()


WINDOWS = {"roi_size": 8, "sw_batch_size": 2, "overlap": 0.25, "mode": "gaussian"}


@pytest.mark.parametrize(("dims", "passes"), [(2, 4), (3, 8)])
@pytest.mark.parametrize("size", [8, 12], ids=["one window", "several windows"])
def test_mirroring_averages_the_logits_of_every_mirror_image(dims, passes, size):
    network, scan = lopsided(dims), torch.randn(1, 2, *[size] * dims)
    plain = SlidingWindowInferer(**WINDOWS)
    axes = range(2, 2 + dims)
    mirrors = [[axis for bit, axis in enumerate(axes) if number >> bit & 1] for number in range(2**dims)]
    with torch.no_grad():
        images = [plain(scan.flip(m) if m else scan, network) for m in mirrors]
        expected = sum(image.flip(m) if m else image for image, m in zip(images, mirrors, strict=True)) / len(mirrors)
        averaged = MirroringSlidingWindowInferer(**WINDOWS, tta=True)(scan, network)
        assert len(mirrors) == passes
        assert torch.allclose(averaged, expected, atol=1e-5)
        assert not torch.allclose(averaged, images[0], atol=1e-3)


def test_what_is_averaged_does_not_care_for_left_and_right():
    network, scan = lopsided(3), torch.randn(1, 2, 8, 8, 8)
    infer = MirroringSlidingWindowInferer(**WINDOWS, tta=True)
    with torch.no_grad():
        assert torch.allclose(infer(scan.flip(2), network), infer(scan, network).flip(2), atol=1e-5)


def test_without_mirroring_each_window_is_seen_once():
    network, scan = lopsided(3), torch.randn(1, 2, 12, 8, 8)
    with torch.no_grad():
        once = MirroringSlidingWindowInferer(**WINDOWS)(scan, network)
        assert torch.equal(once, SlidingWindowInferer(**WINDOWS)(scan, network))


# ---- air, windows, precision ---------------------------------------------------------------------------------------


class Seen(torch.nn.Module):
    """Remembers the windows that it was shown, and finds every voxel that is brighter than 1."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv3d(2, 1, 1)
        self.windows: list[torch.Tensor] = []

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.windows += list(windows)
        return (windows[:, :1] - 1).repeat(1, 3, 1, 1, 1)


def in_air(air: float = -3.0) -> torch.Tensor:
    """Brain in 6 of 24 slices; the rest is air that is no zero."""
    scan = torch.full((1, 2, 24, 8, 8), air)
    scan[:, :, 9:15] = torch.randn(1, 2, 6, 8, 8)
    return scan


def test_a_scan_without_air_is_segmented_exactly_as_by_the_plain_sliding_window():
    network, scan = lopsided(3), torch.randn(1, 2, 20, 12, 9)
    with torch.no_grad():
        plain = SlidingWindowInferer(**WINDOWS)(scan, network)
        assert torch.equal(MirroringSlidingWindowInferer(**WINDOWS, regions=3)(scan, network), plain)


def test_air_is_not_shown_to_the_network_and_is_in_no_region_whatever_its_value():
    network, scan = Seen(), in_air()
    logits = MirroringSlidingWindowInferer(**WINDOWS, regions=3)(scan, network)
    assert len(network.windows) == 2  # of 4; those that start at 0 and at 16 hold nothing
    assert torch.allclose(logits[0, 0, 9:15], scan[0, 0, 9:15] - 1, atol=1e-5)
    assert (logits[0, :, :6] == AIR).all()  # which no other window covers


def test_a_window_of_air_between_two_brains_is_skipped_without_touching_them():
    scan = torch.zeros(1, 2, 8, 8, 40)
    scan[..., :8], scan[..., -8:] = torch.randn(2, 1, 2, 8, 8, 8)
    network, shown = Seen(), Seen()
    skipped = MirroringSlidingWindowInferer(**WINDOWS, regions=3)(scan, network)
    everything = MirroringSlidingWindowInferer(**WINDOWS)(scan, shown)
    assert len(network.windows) < len(shown.windows)
    assert torch.equal((skipped > 0), (everything > 0))
    assert torch.equal(skipped[..., :2], everything[..., :2])  # seen by the first window alone


def test_a_scan_of_nothing_gives_an_empty_mask():
    network = Seen()
    logits = MirroringSlidingWindowInferer(**WINDOWS, regions=3)(torch.full((1, 2, 12, 12, 12), 5.0), network)
    assert network.windows == []
    assert (logits < 0).all()


@pytest.mark.parametrize(
    ("voxels", "window"), [(1e9, [160, 192, 160]), (160 * 160 * 160, [160, 160, 160]), (1, [32, 32, 32])]
)
def test_an_automatic_window_is_as_large_as_memory_allows(voxels, window):
    assert largest_window([140, 175, 138], 32, voxels) == window


def test_an_automatic_window_covers_the_brain_at_once_where_memory_allows():
    network, scan = Seen(), torch.randn(1, 2, 10, 12, 9)
    infer = MirroringSlidingWindowInferer(**{**WINDOWS, "roi_size": "auto"}, divisor=[4, 4, 4], regions=3)
    logits = infer(scan, network)
    assert [tuple(window.shape) for window in network.windows] == [(2, 12, 12, 12)]
    assert torch.allclose(logits[0, 0], scan[0, 0] - 1, atol=1e-5)


@pytest.mark.parametrize(("recipes", "alike"), [([], False), (["configs/recipes/batch_norm.yaml"], True)])
def test_with_batch_norm_alone_a_voxel_is_seen_alike_in_a_window_of_any_size(small_train, recipes, alike):
    torch.manual_seed(0)
    config = small_train(*recipes, deep_supervision=False)
    network, scan = config.get_parsed_content("network").eval(), torch.rand(1, 4, 64, 16, 16)
    with torch.no_grad():
        large, small = network(scan), network(scan[:, :, :40])
    far = slice(0, 20)  # from the end of the smaller window by more than this network looks
    assert torch.allclose(large[:, :, far], small[:, :, far], atol=1e-5) == alike
    assert (config.get_parsed_content("window_size") == "auto") == alike


def test_half_precision_gives_float32_logits_close_to_the_full_ones():
    network, scan = lopsided(3), torch.randn(1, 2, 8, 8, 8)
    with torch.no_grad():
        full, half = (MirroringSlidingWindowInferer(**WINDOWS, half=half)(scan, network) for half in (None, "bfloat16"))
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert torch.allclose(full, half, atol=0.05)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_mirror_images_are_shown_as_many_at_once_as_asked(batch):
    seen, network, scan = [], lopsided(3), torch.randn(1, 2, 12, 8, 8)

    def count(windows: torch.Tensor) -> torch.Tensor:
        seen.append(len(windows))
        return network(windows)

    with torch.no_grad():
        batched = MirroringSlidingWindowInferer(**{**WINDOWS, "sw_batch_size": batch}, tta=True)(scan, count)
        single = MirroringSlidingWindowInferer(**{**WINDOWS, "sw_batch_size": 1}, tta=True)(scan, network)
    assert max(seen) == batch
    assert sum(seen) == 2 * 8
    assert torch.allclose(batched, single, atol=1e-5)


# ---- one case ahead ------------------------------------------------------------------------------------------------


def test_the_next_case_is_prepared_while_the_network_works_on_this_one():
    prepared = threading.Event()

    class Cases(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index == 1:
                prepared.set()
            return {"case": index}

        def __deepcopy__(self, memo):  # an event cannot be copied
            return self

    cases = OneAhead(Cases())
    assert cases[0] == {"case": 0}
    assert prepared.wait(timeout=10)  # without being asked for
    assert cases[1] == {"case": 1}


def test_a_case_that_cannot_be_prepared_fails_when_it_is_its_turn_and_not_before():
    cases = OneAhead(Dataset([{"x": 1.0}, {"y": 1.0}], Lambdad("x", lambda x: x + 1)))
    assert cases[0] == {"x": 2.0}
    with pytest.raises(RuntimeError):
        cases[1]


# ---- what is to be segmented ---------------------------------------------------------------------------------------

CHANNELS = ["T1", "T1c", "T2", "FLAIR"]
FILES = {"T1": ["{case}/{case}_t1.nii*"], "T1c": ["{case}/{case}_t1ce.nii*"], "T2": ["{case}/{case}_t2.nii*"],
         "FLAIR": ["{case}/{case}_flair.nii*"]}  # fmt: skip


def found(source, **others) -> list[dict]:
    return scans(source, CHANNELS, FILES, **others)


def names(cases: list[dict]) -> list[str]:
    return [case["case"] for case in cases]


def test_a_folder_of_patients_is_all_of_them_with_channels_in_order(cohort):
    cases = found(cohort.dataset_dir)
    assert names(cases) == [f"BraTS2021_{k:05d}" for k in range(5)]
    assert [name.rsplit("_", 1)[1] for name in cases[0]["image"]] == [
        f"{c}.nii.gz" for c in ("t1", "t1ce", "t2", "flair")
    ]
    assert cases[0].keys() == {"image", "case"}  # a label beside a scan must not be looked at


def test_the_folder_of_one_patient_is_that_patient(cohort):
    assert names(found(cohort.dataset_dir / "BraTS2021_00002")) == ["BraTS2021_00002"]


def test_patients_that_are_linked_together_are_found(cohort, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "BraTS2021_00001").symlink_to(cohort.dataset_dir / "BraTS2021_00001")
    assert names(found(tmp_path / "linked")) == ["BraTS2021_00001"]


def test_a_data_list_is_its_cases_without_a_label_or_all_of_them(cohort, tmp_path):
    assert names(found(cohort.datalist, dataset_dir=cohort.dataset_dir)) == ["BraTS2021_00004"]
    content = json.loads(cohort.datalist.read_text())
    content["testing"] = []
    (tmp_path / "labelled.json").write_text(json.dumps(content))
    cases = found(tmp_path / "labelled.json", dataset_dir=cohort.dataset_dir)
    assert len(cases) == 4
    assert all("label" not in case for case in cases)
    assert cases[0]["image"][0].startswith(str(cohort.dataset_dir))


def test_one_4d_file_is_one_case_named_after_it(tmp_path):
    (tmp_path / "BRATS_001.nii.gz").write_text("")
    expected = [{"image": str(tmp_path / "BRATS_001.nii.gz"), "case": "BRATS_001"}]
    assert found(tmp_path / "BRATS_001.nii.gz") == expected


def test_a_folder_of_4d_files_is_a_case_each(tmp_path):
    for name in ("b.nii.gz", "a.nii", "readme.txt", "._a.nii"):  # macOS leaves the last beside a.nii
        (tmp_path / name).write_text("")
    assert names(found(tmp_path)) == ["a", "b"]


def test_the_slices_of_patients_are_found_by_the_patterns_with_all_channels_in_one_file(tmp_path):
    for name in ("P/P_2.tif", "P/P_10.tif", "P/P_2_mask.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    files = {channel: ["{patient}/{patient}_{slice}.tif"] for channel in ("T1", "FLAIR", "T1c")}
    found = scans(tmp_path, list(files), files)
    assert found == [{"image": str(tmp_path / "P" / f"P_{k}.tif"), "case": f"P_{k}"} for k in (2, 10)]


def test_a_picture_or_a_folder_of_pictures_is_a_case_each(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).write_text("")
    assert found(tmp_path / "b.png") == [{"image": str(tmp_path / "b.png"), "case": "b"}]
    assert names(found(tmp_path)) == ["a", "b"]


def test_pictures_beside_scans_are_no_scans(tmp_path):
    for name in ("a.nii.gz", "a.png"):
        (tmp_path / name).write_text("")
    assert found(tmp_path) == [{"image": str(tmp_path / "a.nii.gz"), "case": "a"}]


def test_a_stack_is_a_case_for_each_page(tmp_path):
    pictures.write(tmp_path / "a.tif", *np.zeros((3, 4, 5), np.uint8))
    expected = [{"image": f"{tmp_path / 'a.tif'}#{k}", "case": f"a_{k}"} for k in range(3)]
    assert found(tmp_path / "a.tif") == found(tmp_path) == expected


def test_two_files_whose_masks_would_have_one_name_are_refused(tmp_path):
    for name in ("a.nii.gz", "a.nii"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"a\.nii and .*a\.nii\.gz would both give the mask of case a"):
        found(tmp_path)


def test_a_missing_modality_ends_before_anything_is_segmented(cohort, tmp_path):
    shutil.copytree(cohort.dataset_dir, tmp_path / "patients")
    (tmp_path / "patients" / "BraTS2021_00003" / "BraTS2021_00003_t2.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case BraTS2021_00003 lacks channel T2: expected .*_t2"):
        found(tmp_path / "patients")


def test_a_source_that_is_not_there_or_holds_no_scan_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist: give a folder of patients, one scan, or a data list"):
        found(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no scan: expected files like \{case\}/\{case\}_t1\.nii"):
        found(tmp_path)


def test_a_bundle_can_be_loaded_without_any_input():
    assert found(None) == []


# ---- what is done already ------------------------------------------------------------------------------------------

TWO = [{"case": "a", "image": "a.nii"}, {"case": "b", "image": "b.nii"}]


def test_masks_that_are_there_are_not_overwritten(tmp_path):
    assert not_yet_done(TWO, tmp_path, resume=False) == TWO
    mask_path(tmp_path, "a", "a.nii").write_text("")
    with pytest.raises(InputError, match=r"already holds masks of 1 of 2 cases: .*--resume"):
        not_yet_done(TWO, tmp_path, resume=False)


def test_with_resume_only_the_rest_is_done(tmp_path, capsys):
    mask_path(tmp_path, "a", "a.nii").write_text("")
    assert names(not_yet_done(TWO, tmp_path, resume=True)) == ["b"]
    assert "1 of 2 cases are already in" in capsys.readouterr().out
    mask_path(tmp_path, "b", "b.nii").write_text("")
    assert not_yet_done(TWO, tmp_path, resume=True) == []


# ---- masks on disk -------------------------------------------------------------------------------------------------


def oblique(degrees: float = 12.0) -> np.ndarray:
    """LPS, voxels of 1 x 1.5 x 3 mm, turned about the long axis of the head."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.0, -1.5, 3.0])
    affine[:3, 3] = [90, 120, -70]
    return affine


def save_masks(folder, source: nib.Nifti1Image, mask: np.ndarray, probabilities=None, case: str = "a") -> None:
    """What the evaluator does with one case whose scan is in the file of `source`."""
    image = MetaTensor(torch.zeros(1, *mask.shape), meta={"filename_or_obj": source.get_filename()})
    item = {"image": image, "pred": torch.from_numpy(mask)[None].float()}
    if probabilities is not None:
        item["probabilities"] = torch.from_numpy(probabilities)
    engine = Engine(lambda *_: [item])
    MaskSaver(folder).attach(engine)
    engine.run([[{"case": case}]])


def scan(path, shape=(5, 6, 7), qform: int = 1, sform: int = 1, affine: np.ndarray | None = None) -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.zeros(shape, np.float32), None)
    image.header.set_zooms((1.0, 1.5, 3.0)[: len(shape)])
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(oblique() if affine is None else affine, qform)
    image.set_sform(oblique() if affine is None else affine, sform)
    nib.save(image, path)
    return nib.load(path)


@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (1, 4), (2, 0), (0, 2), (0, 0)])
def test_a_mask_lies_where_its_scan_lies_for_every_reader(tmp_path, qform, sform):
    source = scan(tmp_path / "scan.nii.gz", qform=qform, sform=sform)
    mask = np.random.default_rng(0).integers(0, 5, (5, 6, 7)).astype(np.uint8)
    save_masks(tmp_path / "out", source, mask)
    saved = nib.load(tmp_path / "out" / "a.nii.gz")
    assert saved.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(saved.dataobj), mask)
    assert np.allclose(saved.affine, source.affine, atol=1e-4)
    assert nib.aff2axcodes(saved.affine) == nib.aff2axcodes(source.affine)
    assert (int(saved.header["qform_code"]), int(saved.header["sform_code"])) == (qform, sform)
    assert saved.header.get_xyzt_units() == ("mm", "sec")
    assert np.allclose(saved.header.get_zooms(), source.header.get_zooms())
    if qform:  # ITK reads this one
        assert np.allclose(saved.get_qform(), source.get_qform(), atol=1e-4)


def test_probabilities_are_written_beside_one_volume_a_region(tmp_path):
    probabilities = np.random.default_rng(0).random((3, 5, 6, 7)).astype(np.float32)
    source = scan(tmp_path / "scan.nii.gz")
    save_masks(tmp_path / "out", source, np.zeros((5, 6, 7), np.uint8), probabilities)
    saved = nib.load(tmp_path / "out" / "probabilities" / "a.nii.gz")
    assert saved.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(saved.dataobj), np.moveaxis(probabilities, 0, -1))
    assert np.allclose(saved.affine, source.affine)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"a\.nii\.gz cannot be written"):
        save_masks(tmp_path / "file" / "out", scan(tmp_path / "scan.nii.gz"), np.zeros((5, 6, 7), np.uint8))


def test_a_full_disk_leaves_no_half_mask_that_resume_would_take_for_done(tmp_path, full_disk):
    source = scan(tmp_path / "scan.nii.gz", shape=(40, 40, 40))
    mask = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
    with full_disk(10_000), pytest.raises(InputError, match="cannot be written"):
        save_masks(tmp_path / "out", source, mask)
    assert list((tmp_path / "out").iterdir()) == []
    assert names(not_yet_done(TWO, tmp_path / "out", resume=True)) == ["a", "b"]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (["a_t1.nii", "a_t2.nii"], "x.nii.gz"),
        ("a.nii.gz", "x.nii.gz"),
        (["a.png"], "x.png"),
        ("A.TIF", "x.tif"),
        ("a.tiff#3", "x.tiff"),
        ("a.jpg", "x.png"),
    ],
)
def test_a_mask_has_the_format_of_its_image_and_is_never_a_jpeg(tmp_path, image, name):
    assert mask_path(tmp_path, "x", image) == tmp_path / name


MASK = np.random.default_rng(0).choice([0, 255], (5, 6)).astype(np.uint8)  # [x, y]


def save_picture_masks(folder, images: dict[str, str], stacks: bool = True) -> None:
    """What the evaluator does with a case for each image; all masks differ."""
    engine = Engine(lambda _, batch: [{"image": batch[0]["image"], "pred": batch[0]["pred"]}])
    MaskSaver(folder, stacks).attach(engine)
    batches = []
    for number, (case, name) in enumerate(images.items()):
        image = MetaTensor(torch.zeros(1, 5, 6), meta={"filename_or_obj": name})
        batches.append([{"case": case, "image": image, "pred": torch.from_numpy(MASK - number)[None].float()}])
    engine.run(batches)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_the_mask_of_a_picture_lies_on_it_pixel_for_pixel(tmp_path, ending):
    save_picture_masks(tmp_path, {"a": f"/scans/a{ending}"})
    assert np.array_equal(pictures.read(tmp_path / f"a{ending}"), MASK)
    assert pictures.read(tmp_path / f"a{ending}").dtype == np.uint8


def stack_of(path, number: int) -> dict[str, str]:
    pictures.write(path, *np.zeros((number, 5, 6), np.uint8))
    return {f"a_{k}": f"{path}#{k}" for k in range(number)}


def test_the_masks_of_a_stack_become_one_stack_when_all_are_there(tmp_path):
    images = stack_of(tmp_path / "a-volume.tif", 3)
    save_picture_masks(tmp_path / "out", dict(list(images.items())[:2]))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_0.tif", "a_1.tif"}
    waiting = [{"case": case, "image": image} for case, image in images.items()]
    assert names(not_yet_done(waiting, tmp_path / "out", resume=True)) == ["a_2"]
    save_picture_masks(tmp_path / "out", images)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tif"]
    assert all(np.array_equal(pictures.read(f"{tmp_path / 'out' / 'a.tif'}#{k}"), MASK - k) for k in range(3))
    assert not_yet_done(waiting, tmp_path / "out", resume=True) == []


def test_the_masks_that_are_judged_stay_a_file_a_case(tmp_path):
    images = stack_of(tmp_path / "a.tif", 2)
    save_picture_masks(tmp_path / "out", images, stacks=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_0.tif", "a_1.tif"}


# ---- the whole way: preprocessing, network, postprocessing, file ---------------------------------------------------


class Ideal(torch.nn.Module):
    """Finds what `write_case` hid: region r is where channel r is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = []
        for channel in image[0, :3]:
            usual = channel[channel != 0].median()  # most of the head is neither tumour nor air
            logits.append(20 * (channel - (usual + channel.max()) / 2))
        return torch.stack(logits)[None]


def ball(shape, centre, radius_mm: float, voxel=(1.0, 1.5, 3.0)) -> np.ndarray:
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return (((place - centre) * voxel[: len(shape)]) ** 2).sum(-1) < radius_mm**2


def write_case(folder, shape=(40, 32, 16), speck: tuple[slice, ...] | None = None, affine=None) -> np.ndarray:
    """A head of ones in air, with WT, TC and ET bright in one channel each; returns the true label map."""
    centre = [0.45 * n for n in shape]
    head = ball(shape, [n / 2 for n in shape], 19)
    regions = [ball(shape, centre, radius) & head for radius in (12, 8, 5)]
    if speck is not None:
        for region in regions:
            region[speck] = True
    label = np.select([regions[2], regions[1], regions[0]], [4, 1, 2], 0).astype(np.uint8)
    (folder / "X").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, region in zip(("t1", "t1ce", "t2", "flair"), [*regions, head], strict=True):
        values = head * (100 + 100 * region + rng.random(shape))
        image = nib.Nifti1Image(values.astype(np.float32), oblique() if affine is None else affine)
        nib.save(image, folder / "X" / f"X_{name}.nii.gz")
    return label


def segment(read_config, folder, **knobs) -> nib.Nifti1Image:
    """Run `inferring` with the ideal network; the saved mask."""
    config = read_config(
        "configs/inference.yaml", "configs/tasks/phantom.yaml",
        input=str(folder), output_dir=str(folder.parent / "masks"), device="cpu", network=Ideal(), **knobs,
    )  # fmt: skip
    config.get_parsed_content("initialize")
    config.get_parsed_content("evaluator").run()
    return nib.load(folder.parent / "masks" / "X.nii.gz")


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_what_is_found_comes_back_voxel_for_voxel_on_an_oblique_lps_grid_of_flat_voxels(read_config, tmp_path):
    label = write_case(tmp_path / "in")
    saved = segment(read_config, tmp_path / "in")
    assert np.array_equal(np.asarray(saved.dataobj), label)
    assert np.allclose(saved.affine, oblique(), atol=1e-4)
    assert nib.aff2axcodes(saved.affine) == ("L", "P", "S")


@pytest.mark.parametrize("spacing", [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], ids=["finer", "coarser"])
def test_what_is_found_on_another_spacing_comes_back_to_the_scans_own(read_config, tmp_path, spacing):
    label = write_case(tmp_path / "in")
    saved = segment(read_config, tmp_path / "in", spacing=spacing)
    mask = np.asarray(saved.dataobj)
    assert mask.shape == label.shape
    assert np.allclose(saved.affine, oblique(), atol=1e-4)
    for values in ([1, 2, 4], [1, 4], [4]):
        assert dice(np.isin(mask, values), np.isin(label, values)) > 0.9


def test_mirroring_and_probabilities_change_no_mask_of_a_network_that_needs_none(read_config, tmp_path):
    label = write_case(tmp_path / "in")
    saved = segment(read_config, tmp_path / "in", tta=True, save_probabilities=True)
    assert np.array_equal(np.asarray(saved.dataobj), label)
    probabilities = nib.load(tmp_path / "masks" / "probabilities" / "X.nii.gz")
    assert np.array_equal(np.asarray(probabilities.dataobj)[..., 2] > 0.5, label == 4)
    assert float(np.asarray(probabilities.dataobj).max()) <= 1


@pytest.mark.parametrize(("minimum", "stays"), [(0.03, True), (0.04, False)])
def test_small_components_are_measured_in_the_scans_own_voxels(read_config, tmp_path, minimum, stays):
    # 2 x 2 x 2 voxels of 4.5 mm³ are 0.036 ml
    speck = (slice(8, 10), slice(16, 18), slice(8, 10))
    label = write_case(tmp_path / "in", speck=speck)
    minima = dict.fromkeys(("WT", "TC", "ET"), minimum)
    mask = np.asarray(segment(read_config, tmp_path / "in", min_component_ml=minima).dataobj)
    assert bool((mask[speck] == 4).all()) == stays
    label[speck] = mask[speck]
    assert np.array_equal(mask, label)


@pytest.mark.parametrize(("minimum", "stays"), [(0.3, True), (0.55, False)])
def test_small_components_have_the_same_volume_when_the_network_sees_another_spacing(
    read_config, tmp_path, minimum, stays
):
    # 6 x 4 x 4 voxels of 4.5 mm³ are 0.43 ml; as many of 1 mm³ would be 0.1 ml, and of the network's 8 mm³ 0.77 ml
    speck = (slice(4, 10), slice(14, 18), slice(6, 10))
    write_case(tmp_path / "in", speck=speck)
    minima = dict.fromkeys(("WT", "TC", "ET"), minimum)
    mask = np.asarray(segment(read_config, tmp_path / "in", min_component_ml=minima, spacing=[2.0, 2.0, 2.0]).dataobj)
    assert bool((mask[speck] == 4).any()) == stays
    assert (mask > 0).any()


def test_slices_go_the_same_way(read_config, tmp_path):
    label = write_case(tmp_path / "in", shape=(40, 32))
    saved = segment(read_config, tmp_path / "in", patch_size=[32, 32], filters=[8, 16, 32])
    assert np.array_equal(np.asarray(saved.dataobj), label)


def test_intensities_below_zero_are_brain_and_not_cropped_away(read_config, tmp_path):
    label = write_case(tmp_path / "in")
    for path in (tmp_path / "in" / "X").iterdir():  # as if they had been normalised before
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(array > 0, array - 150, 0), image.affine), path)
    assert np.array_equal(np.asarray(segment(read_config, tmp_path / "in").dataobj), label)


def test_one_4d_file_goes_the_same_way(read_config, tmp_path):
    label = write_case(tmp_path / "in")
    channels = [nib.load(tmp_path / "in" / "X" / f"X_{name}.nii.gz") for name in ("t1", "t1ce", "t2", "flair")]
    nib.save(nib.concat_images(channels), tmp_path / "X.nii.gz")
    saved = segment(read_config, tmp_path / "X.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj), label)
    assert np.allclose(saved.affine, oblique(), atol=1e-4)


def write_picture(path, label: np.ndarray, array: np.ndarray) -> None:
    """A picture in colours with a black margin, the first colour bright where the label [x, y] is."""
    noise = np.random.default_rng(0).integers(100, 110, (*label.shape, 3))
    colours = np.where(array[..., None], noise, 0)
    colours[..., 0] += 100 * label
    Image.fromarray(colours.swapaxes(0, 1).astype(np.uint8)).save(path)


class Bright(torch.nn.Module):
    """Finds what `write_picture` hid."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = image[:, :1]
        return 20 * (first - (first[first != 0].median() + first.max()) / 2)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_what_is_found_in_a_picture_comes_back_pixel_for_pixel_with_the_values_of_the_scheme(
    read_config, tmp_path, ending
):
    seen = np.zeros((60, 40), bool)
    seen[10:55, 3:30] = True
    label = ball((60, 40), (40, 10), 5, voxel=(1.0, 1.0)) & seen
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "in" / f"X{ending}", label, seen)
    config = read_config(
        "configs/inference.yaml", "configs/tasks/lgg.yaml", input=str(tmp_path / "in"), device="cpu", network=Bright(),
        output_dir=str(tmp_path / "masks"), patch_size=[32, 32], save_probabilities=True, normalize="zscore_nonzero",
    )  # fmt: skip
    config.get_parsed_content("initialize")
    config.get_parsed_content("evaluator").run()
    assert np.array_equal(pictures.read(tmp_path / "masks" / f"X{ending}"), 255 * label)
    probabilities = nib.load(tmp_path / "masks" / "probabilities" / "X.nii.gz")
    assert np.array_equal(np.asarray(probabilities.dataobj)[..., 0] > 0.5, label)


def test_a_mask_older_than_the_weights_is_of_another_network_and_made_anew(tmp_path):
    mask, weights = mask_path(tmp_path, "a", "a.nii.gz"), tmp_path / "model.pt"
    for place, path in enumerate((mask, weights)):
        path.touch()
        os.utime(path, (1000 + place, 1000 + place))
    waiting = [{"case": "a", "image": "a.nii.gz"}]
    assert not_yet_done(waiting, tmp_path, resume=True) == []
    assert not_yet_done(waiting, tmp_path, resume=True, checkpoint=weights) == waiting
    with pytest.raises(InputError, match="already holds masks of 1 of 1"):
        not_yet_done(waiting, tmp_path, resume=False, checkpoint=weights)
