"""Sliding-window inference, and masks on the grid of the original scan."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from PIL import Image

from scripts.data import pictures
from scripts.data.decision import BACKGROUND
from scripts.inference.sliding_window import FLAT_RANGE, MirroringSlidingWindowInferer, largest_window
from tests.made.gpu import needs_gpu
from tests.made.masks import oblique

# ---- mirror images -------------------------------------------------------------------------------------------------


def lopsided(dims: int) -> torch.nn.Module:
    """A small network whose weights are not symmetric."""
    torch.manual_seed(0)
    convolution = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims]
    return torch.nn.Sequential(convolution(2, 4, 3, padding=1), torch.nn.ReLU(), convolution(4, 3, 3, padding=1)).eval()


THREE = [BACKGROUND] * 3
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


def test_mirrored_average_ignores_left_and_right():
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
    """Records its input windows, and segments every voxel brighter than 1."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv3d(2, 1, 1)
        self.windows: list[torch.Tensor] = []

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.windows += list(windows)
        return (windows[:, :1] - 1).repeat(1, 3, 1, 1, 1)


def in_air(air: float = -3.0) -> torch.Tensor:
    """Brain in 6 of 24 slices; the rest is background other than zero."""
    scan = torch.full((1, 2, 24, 8, 8), air)
    scan[:, :, 9:15] = torch.randn(1, 2, 6, 8, 8)
    return scan


def test_scan_without_background_is_segmented_as_by_plain_sliding_window():
    network, scan = lopsided(3), torch.randn(1, 2, 20, 12, 9)
    with torch.no_grad():
        plain = SlidingWindowInferer(**WINDOWS)(scan, network)
        assert torch.equal(MirroringSlidingWindowInferer(**WINDOWS, background_logits=THREE)(scan, network), plain)


def test_background_is_skipped_and_in_no_region_whatever_its_value():
    network, scan = Seen(), in_air()
    logits = MirroringSlidingWindowInferer(**WINDOWS, background_logits=THREE)(scan, network)
    assert len(network.windows) == 2  # of 4; those that start at 0 and at 16 hold nothing
    assert torch.allclose(logits[0, 0, 9:15], scan[0, 0, 9:15] - 1, atol=1e-5)
    assert (logits[0, :, :6] == BACKGROUND).all()  # which no other window covers


def test_background_window_between_two_brains_is_skipped_without_affecting_them():
    scan = torch.zeros(1, 2, 8, 8, 40)
    scan[..., :8], scan[..., -8:] = torch.randn(2, 1, 2, 8, 8, 8)
    network, shown = Seen(), Seen()
    skipped = MirroringSlidingWindowInferer(**WINDOWS, background_logits=THREE)(scan, network)
    everything = MirroringSlidingWindowInferer(**WINDOWS)(scan, shown)
    assert len(network.windows) < len(shown.windows)
    assert torch.equal((skipped > 0), (everything > 0))
    assert torch.equal(skipped[..., :2], everything[..., :2])  # seen by the first window alone


def one_by_one(network, regions: int):
    """Checks each window in turn, as a reference for finding all background windows at once."""

    def see(windows: torch.Tensor) -> torch.Tensor:
        axes = tuple(range(2, windows.dim()))
        brain = (windows.amax(axes) - windows.amin(axes) > FLAT_RANGE).any(1)
        logits = windows.new_full((len(windows), regions, *windows.shape[2:]), BACKGROUND)
        for number in brain.nonzero().flatten():
            logits[number] = network(windows[number][None])[0]
        return logits

    return see


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [((30, 9, 20), 8, 0.5), ((5, 23, 6), [8, 8, 8], 0.25), ((7, 24, 5), [-1, 6, 8], [0.5, 0.3, 0]), ((30, 21), 8, 0.5)],
    ids=["larger", "smaller than a window", "whole axis", "slice"],
)
def test_skipped_windows_are_exactly_the_empty_ones(size, window, overlap, batch):
    torch.manual_seed(0)
    network, scan = lopsided(len(size)), torch.randn(2, 2, *size)
    scan[0, :, :, 6:], scan[1, :, : size[0] // 2] = 0, -3
    windows = {"roi_size": window, "sw_batch_size": batch, "overlap": overlap, "mode": "gaussian"}
    with torch.no_grad():
        found = MirroringSlidingWindowInferer(**windows, background_logits=THREE)(scan, network)
        expected = SlidingWindowInferer(**windows)(scan, one_by_one(network, 3))
    assert (expected == BACKGROUND).any()  # so that something was skipped
    assert torch.allclose(found, expected, atol=1e-6)


def test_cpu_runs_one_window_at_a_time_by_default():
    seen, scan = [], torch.randn(1, 2, 20, 8, 8)

    def count(windows: torch.Tensor) -> torch.Tensor:
        seen.append(len(windows))
        return windows

    MirroringSlidingWindowInferer(**{**WINDOWS, "sw_batch_size": "auto"})(scan, count)
    assert seen == [1, 1, 1]


@needs_gpu
def test_gpu_predicts_several_windows_without_waiting_between_them():
    network, scan = lopsided(3).cuda(), torch.randn(1, 2, 48, 8, 8).cuda()
    infer = MirroringSlidingWindowInferer(**{**WINDOWS, "sw_batch_size": "auto"}, background_logits=THREE)
    seen = []

    def strict_network(windows: torch.Tensor) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("default" if seen else "error")  # an error from the first call to the second
        seen.append(len(windows))
        return network(windows)

    with torch.no_grad():
        try:
            logits = infer(scan, strict_network)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected = SlidingWindowInferer(**WINDOWS)(scan, network)
    assert seen == [4, 4]
    assert torch.allclose(logits, expected, atol=0.01)  # TF32


def test_empty_scan_gives_an_empty_mask():
    network = Seen()
    logits = MirroringSlidingWindowInferer(**WINDOWS, background_logits=THREE)(
        torch.full((1, 2, 12, 12, 12), 5.0), network
    )
    assert network.windows == []
    assert (logits < 0).all()


@pytest.mark.parametrize(
    ("voxels", "window"), [(1e9, [160, 192, 160]), (160 * 160 * 160, [160, 160, 160]), (1, [32, 32, 32])]
)
def test_an_automatic_window_is_as_large_as_memory_allows(voxels, window):
    assert largest_window([140, 175, 138], [32] * 3, voxels) == window


def test_automatic_window_covers_the_whole_brain_if_memory_allows():
    network, scan = Seen(), torch.randn(1, 2, 10, 12, 9)
    infer = MirroringSlidingWindowInferer(
        **{**WINDOWS, "roi_size": "auto"}, patch_size=[4, 4, 4], background_logits=THREE
    )
    logits = infer(scan, network)
    *_, window = network.windows  # the ones before it are shapes, by which the network was asked
    assert tuple(window.shape) == (2, 10, 12, 9)  # this network accepts any size
    assert torch.allclose(logits[0, 0], scan[0, 0] - 1, atol=1e-5)


def test_automatic_window_accepts_a_function_without_parameters():
    infer = MirroringSlidingWindowInferer("auto")
    scan = torch.randn(1, 2, 10, 12, 9)
    assert torch.equal(infer(scan, torch.neg), -scan)


@pytest.mark.parametrize(("recipes", "alike"), [([], False), (["configs/recipes/batch_norm.yaml"], True)])
def test_only_batch_norm_makes_a_voxel_independent_of_window_size(small_train, recipes, alike):
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


# ---- the whole way: preprocessing, network, postprocessing, file ---------------------------------------------------


class Ideal(torch.nn.Module):
    """Segments what `write_case` drew: region r is where channel r is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = []
        for channel in image[0, :3]:
            usual = channel[channel != 0].median()  # most of the head is neither tumour nor air
            logits.append(20 * (channel - (usual + channel.max()) / 2))
        return torch.stack(logits)[None]


def ball(shape, centre, radius_mm: float, voxel=(1.0, 1.5, 3.0)) -> np.ndarray:
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return (((place - centre) * voxel[: len(shape)]) ** 2).sum(-1) < radius_mm**2


def write_case(
    folder, shape=(40, 32, 16), speck: tuple[slice, ...] | None = None, affine=None, case: str = "X"
) -> np.ndarray:
    """A head of ones on background, with WT, TC and ET bright in one channel each; returns the true label map."""
    centre = [0.45 * n for n in shape]
    head = ball(shape, [n / 2 for n in shape], 19)
    regions = [ball(shape, centre, radius) & head for radius in (12, 8, 5)]
    if speck is not None:
        for region in regions:
            region[speck] = True
    label = np.select([regions[2], regions[1], regions[0]], [4, 1, 2], 0).astype(np.uint8)
    (folder / case).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, region in zip(("t1", "t1ce", "t2", "flair"), [*regions, head], strict=True):
        values = head * (100 + 100 * region + rng.random(shape))
        image = nib.Nifti1Image(values.astype(np.float32), oblique() if affine is None else affine)
        nib.save(image, folder / case / f"{case}_{name}.nii.gz")
    return label


def segment(read_config, folder, **settings) -> nib.Nifti1Image:
    """Run `inferring` with the ideal network; the saved mask."""
    config = read_config(
        "configs/inference.yaml", "configs/tasks/phantom.yaml",
        input=str(folder), output_dir=str(folder.parent / "masks"), network=Ideal(), **{"device": "cpu", **settings},
    )  # fmt: skip
    config.get_parsed_content("initialize")
    config.get_parsed_content("evaluator").run()
    return nib.load(folder.parent / "masks" / "X.nii.gz")


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_mask_matches_on_an_oblique_lps_grid_with_anisotropic_voxels(read_config, tmp_path):
    label = write_case(tmp_path / "in")
    saved = segment(read_config, tmp_path / "in")
    assert np.array_equal(np.asarray(saved.dataobj), label)
    assert np.allclose(saved.affine, oblique(), atol=1e-4)
    assert nib.aff2axcodes(saved.affine) == ("L", "P", "S")


def towards(axes: str) -> np.ndarray:
    """The affine of voxels of 1 x 1.5 x 3 mm whose axes run to these sides."""
    turn = nib.orientations.axcodes2ornt(axes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, ((side, sign), size) in enumerate(zip(turn, (1.0, 1.5, 3.0), strict=True)):
        affine[int(side), axis] = sign * size
    return affine


ORIENTATIONS = ["RAS", "LPS", "ASR", "SLP"]


@pytest.mark.parametrize("axes", ORIENTATIONS)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_mask_matches_voxel_for_voxel_in_every_orientation(read_config, tmp_path, axes, device):
    label = write_case(tmp_path / "in", affine=towards(axes))
    saved = segment(read_config, tmp_path / "in", device=device)
    assert np.array_equal(np.asarray(saved.dataobj), label)
    assert nib.aff2axcodes(saved.affine) == tuple(axes)


@pytest.mark.parametrize("preparing", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_cases_prepared_at_the_same_time_keep_their_own_masks(read_config, tmp_path, preparing):
    cases = {"X": "RAS", **{f"{place}{axes}": axes for place, axes in enumerate([*ORIENTATIONS, "RAS"])}}
    shapes = {case: (40, 32, 16 + 2 * place) for place, case in enumerate(cases)}
    labels = {
        case: write_case(tmp_path / "in", shapes[case], affine=towards(axes), case=case) for case, axes in cases.items()
    }
    device = "cpu" if preparing == "cpu" else "cuda"
    segment(read_config, tmp_path / "in", cases_ahead=3, device=device, preprocessing_device=preparing)
    for case, label in labels.items():
        assert np.array_equal(np.asarray(nib.load(tmp_path / "masks" / f"{case}.nii.gz").dataobj), label)


@needs_gpu
@pytest.mark.parametrize("preparing", ["cpu", "cuda"])
def test_a_gpu_writes_the_probabilities_of_a_cpu(read_config, tmp_path, preparing):
    found = {}
    for device in ("cpu", "cuda"):
        write_case(tmp_path / device / "in")
        settings = {"save_probabilities": True, "spacing": [2.0, 2.0, 2.0], "preprocessing_device": preparing}
        segment(read_config, tmp_path / device / "in", device=device, **settings)
        found[device] = np.asarray(nib.load(tmp_path / device / "masks" / "probabilities" / "X.nii.gz").dataobj)
    assert np.allclose(found["cpu"], found["cuda"], atol=0.02)
    assert np.mean((found["cpu"] > 0.5) != (found["cuda"] > 0.5)) < 1e-3


@pytest.mark.parametrize("spacing", [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], ids=["finer", "coarser"])
def test_mask_of_another_spacing_returns_to_the_scans_own(read_config, tmp_path, spacing):
    label = write_case(tmp_path / "in")
    saved = segment(read_config, tmp_path / "in", spacing=spacing)
    mask = np.asarray(saved.dataobj)
    assert mask.shape == label.shape
    assert np.allclose(saved.affine, oblique(), atol=1e-4)
    for values in ([1, 2, 4], [1, 4], [4]):
        assert dice(np.isin(mask, values), np.isin(label, values)) > 0.9


def test_mirroring_and_probabilities_change_no_mask_of_an_equivariant_network(read_config, tmp_path):
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
def test_small_components_have_the_same_volume_at_another_network_spacing(read_config, tmp_path, minimum, stays):
    # 6 x 4 x 4 voxels of 4.5 mm³ are 0.43 ml; as many of 1 mm³ would be 0.1 ml, and of the network's 8 mm³ 0.77 ml
    speck = (slice(4, 10), slice(14, 18), slice(6, 10))
    write_case(tmp_path / "in", speck=speck)
    minima = dict.fromkeys(("WT", "TC", "ET"), minimum)
    mask = np.asarray(segment(read_config, tmp_path / "in", min_component_ml=minima, spacing=[2.0, 2.0, 2.0]).dataobj)
    assert bool((mask[speck] == 4).any()) == stays
    assert (mask > 0).any()


def test_slices_are_segmented_like_volumes(read_config, tmp_path):
    label = write_case(tmp_path / "in", shape=(40, 32))
    saved = segment(read_config, tmp_path / "in", patch_size=[32, 32], filters=[8, 16, 32])
    assert np.array_equal(np.asarray(saved.dataobj), label)


def test_negative_intensities_are_brain_and_not_cropped(read_config, tmp_path):
    label = write_case(tmp_path / "in")
    for path in (tmp_path / "in" / "X").iterdir():  # as if they had been normalised before
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(array > 0, array - 100.5, 0), image.affine), path)
    assert np.array_equal(np.asarray(segment(read_config, tmp_path / "in").dataobj), label)


def test_one_4d_file_is_segmented_like_separate_files(read_config, tmp_path):
    label = write_case(tmp_path / "in")
    channels = [nib.load(tmp_path / "in" / "X" / f"X_{name}.nii.gz") for name in ("t1", "t1ce", "t2", "flair")]
    nib.save(nib.concat_images(channels), tmp_path / "X.nii.gz")
    saved = segment(read_config, tmp_path / "X.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj), label)
    assert np.allclose(saved.affine, oblique(), atol=1e-4)


def write_picture(path, label: np.ndarray, array: np.ndarray) -> None:
    """A colour picture with a black margin, the first colour bright where the label [x, y] is."""
    noise = np.random.default_rng(0).integers(100, 110, (*label.shape, 3))
    colours = np.where(array[..., None], noise, 0)
    colours[..., 0] += 100 * label
    Image.fromarray(colours.swapaxes(0, 1).astype(np.uint8)).save(path)


class Bright(torch.nn.Module):
    """Segments what `write_picture` drew."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = image[:, :1]
        return 20 * (first - (first[first != 0].median() + first.max()) / 2)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_mask_of_a_picture_matches_pixels_and_scheme_values(read_config, tmp_path, ending):
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
    assert np.array_equal(pictures.read_picture(tmp_path / "masks" / f"X{ending}"), 255 * label)
    probabilities = nib.load(tmp_path / "masks" / "probabilities" / "X.nii.gz")
    assert np.array_equal(np.asarray(probabilities.dataobj)[..., 0] > 0.5, label)
