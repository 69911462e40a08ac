"""Peak memory of training patches and of inference on slides of several sizes, each measured in a separate process."""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import Dataset

from bundle.benchmarks.memory import process_memory
from bundle.benchmarks.timing import BenchmarkResult, Timing
from bundle.cohort.phantom_slides import write_slide
from scripts.data.decision import RegionDecision
from scripts.data.sampler import EpochSampler
from scripts.files import write_json
from scripts.inference.mask_records import MaskRecords
from scripts.inference.prefetch import PrefetchedDataset
from scripts.inference.slide_segmenter import SlideInferer, SlideSegmenter

PATCHES, PATCH, FILTERS = 100, 256, [8, 16, 32]
FILES = ["configs/train.yaml", "configs/recipes/large_images.yaml"]
TASK = {"channels": ["R", "G", "B"], "label_scheme": "slide", "labels": {"tumour": 1}, "regions": {"tumour": [1]}}


def measure_slides(sizes: Sequence[int] = (4096, 16384)) -> BenchmarkResult:
    """Measure 100 training patches and the segmentation of one synthetic slide, for each size in pixels per side."""
    rows = []
    with tempfile.TemporaryDirectory() as made:
        for size in sizes:
            folder = Path(made, str(size))
            levels = 1 + max(0, (size // 1024).bit_length() - 1)
            write_slide(folder / "s.tif", folder / "s_mask.tif", size, levels=levels, parts=max(1, size // 2048))
            write_json(folder / "list.json", _datalist())
            for what, measure in (("training patches", _train), ("inference", _segment)):
                # an executor, since a Pool waits forever for a process that died
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    memory, seconds = pool.submit(measure, folder).result()
                rows.append(Timing(f"{size} x {size} pixels: {what}, peak memory", [memory], "MB"))
                rows.append(Timing(f"{size} x {size} pixels: {what}", [seconds]))
    notes = ["Peak memory: of the whole process, in which the libraries are most; the ratio is to the first row."]
    settings = {"sizes": list(sizes), "patch": PATCH, "patches": PATCHES, "filters": FILTERS}
    return BenchmarkResult("slides", f"synthetic slides, patches of {PATCH} pixels per side", rows, settings, notes)


def _datalist() -> dict:
    files = {"image": "s.tif", "label": "s_mask.tif"}
    entries = [
        {**files, "case": case, "patient": case, "fold": fold} for fold, case in enumerate("vs")
    ]  # fold 0 is left out
    return {**TASK, "unit": "pixel", "hashes": {}, "training": entries}


def _config(folder: Path) -> ConfigParser:
    torch.set_num_threads(1)
    config = ConfigParser()
    config.read_config(FILES)
    given = {"datalist": str(folder / "list.json"), "dataset_dir": str(folder), "device": "cpu"}
    config.update({**TASK, **given, "patch_size": [PATCH, PATCH], "filters": FILTERS})
    config.parse()
    return config


def _train(folder: Path) -> tuple[float, float]:
    dataset = _config(folder).get_parsed_content("train::dataset")
    began = time.process_time()
    for index in EpochSampler(cases=1, samples=PATCHES):
        dataset[index]
    return process_memory("VmHWM"), time.process_time() - began


def _segment(folder: Path) -> tuple[float, float]:
    config = _config(folder)
    regions, labels = TASK["regions"], TASK["labels"]
    dataset = PrefetchedDataset(Dataset([{"image": str(folder / "s.tif"), "case": "s"}]))
    records = MaskRecords(folder / "masks", [folder / "none.pt"], {})
    inferer = SlideInferer(0, [PATCH, PATCH], 0.0, channels=3)
    segmenter = SlideSegmenter(
        dataset,
        config.get_parsed_content("network_def"),
        inferer,
        records,
        RegionDecision("regions", regions, labels),
        regions,
        labels,
    )
    began = time.process_time()
    segmenter.run()
    return process_memory("VmHWM"), time.process_time() - began
