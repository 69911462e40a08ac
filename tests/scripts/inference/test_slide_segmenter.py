import numpy as np
import pytest
import tifffile
import torch

from bundle.cohort.phantom_slides import write_slide
from scripts.data.decision import RegionDecision
from scripts.data.slides import Slide
from scripts.inference.mask_records import MaskRecords
from scripts.inference.prefetch import PrefetchedDataset
from scripts.inference.slide_segmenter import SlideInferer, SlideSegmenter, SlideSplitter, write_mask
from tests.made import refused

pytest.importorskip("zarr")
TUMOUR = {"tumour": 1}


class Darkness(torch.nn.Module):
    """Logits above 0 where the first channel is dark, by one convolution."""

    def __init__(self, classes=1):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        logits = -images[:, :1] - 1.0
        return logits if self.classes == 1 else torch.cat([-logits, logits], 1)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slide")
    write_slide(folder / "s.tif", folder / "s_mask.tif", 700, levels=2)
    return folder / "s.tif"


def segment(slide, folder, decision="regions", overlap=0.25, **options):
    chosen = RegionDecision(decision, {"tumour": [1]}, TUMOUR)
    inferer = SlideInferer(0, [128, 96], overlap, channels=3, softmax=chosen.by_class, **options)
    records = MaskRecords(folder, [folder / "none.pt"], {})
    network = Darkness(1 + chosen.by_class)
    segmenter = SlideSegmenter(
        PrefetchedDataset(torch.utils.data.Dataset()), network, inferer, records, chosen, {"tumour": [1]}, TUMOUR
    )
    return segmenter, segmenter.segment("s", str(slide))


@pytest.mark.parametrize("decision", ["regions", "classes"])
@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_the_mask_is_that_of_the_whole_image(slide, tmp_path, decision, overlap):
    _, path = segment(slide, tmp_path, decision, overlap)
    opened = Slide(slide)
    whole = torch.from_numpy(opened.read_normalised((0, 0), opened.shape))[None]
    expected = (Darkness()(whole)[0, 0] > 0).numpy().T
    tissue = tifffile.imread(path) == expected
    assert tissue.mean() > 0.999  # beyond the windows of tissue nothing is segmented


def test_windows_cover_all_tissue_and_nothing_else(slide):
    opened, covered = Slide(slide), np.zeros((700, 700), bool)
    places = [place for _, place in SlideSplitter([128, 96], 0.0)(opened)]
    for x, y in places:
        covered[x : x + 128, y : y + 96] = True
    tissue = opened.summary[0]
    assert tissue.shape == (700, 700)
    assert covered[tissue].all()
    assert not covered[:20, :20].any()


def test_a_finished_mask_has_a_record_and_no_leftovers(slide, tmp_path):
    segmenter, _ = segment(slide, tmp_path)
    assert segmenter.records.is_finished("s", str(slide))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".records", "s.tif"]


def test_a_large_mask_has_levels_of_every_second_pixel(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (2100, 1500)).astype(np.uint8)  # [x, y]
    write_mask(tmp_path / "a.tif", mask.shape, lambda x, y: mask[x, y])
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    for level, step in zip(levels, (1, 2, 4), strict=True):
        np.testing.assert_array_equal(level, mask[::step, ::step].T)


def test_nan_of_the_network_ends_in_a_sentence(slide, tmp_path):
    segmenter, _ = segment(slide, tmp_path)
    segmenter.network.forward = lambda images: images[:, :1] * float("nan")
    assert "the network gives NaN or infinite values" in refused(segmenter.segment, "s", str(slide))


def test_mirror_images_are_refused():
    assert "tta needs whole images" in refused(SlideInferer, 0, [8, 8], 0.0, 3, refused={"tta": True})
