"""Slides to masks patch by patch: MONAI's PatchInferer, which merges probabilities on disk, and tiled pyramidal TIFF.

Nothing of the size of a slide is in memory: windows are read from the slide, probabilities averaged in Zarr arrays in a
temporary folder next to the masks, and the mask written tile by tile.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from monai.inferers import PatchInferer, Splitter, ZarrAvgMerger

from scripts import stopping
from scripts.data.decision import ClassesToLabelsd, RegionDecision
from scripts.data.regions import RegionsToLabelsd
from scripts.data.slides import OVERVIEW, Slide, refuse_settings
from scripts.errors import InputError, input_error_message
from scripts.files import atomic_write, unfinished_prefix
from scripts.inference.mask_records import MaskRecords
from scripts.inference.mask_saver import mask_path
from scripts.inference.prefetch import PrefetchedDataset
from scripts.network.outputs import read_output
from scripts.network.precision import PrecisionInferer
from scripts.progress import progress_bar

TILE = 256  # pixels: side of the tiles of a mask, and of the chunks of probabilities


class SlideSplitter(Splitter):
    """The windows of a slide that show tissue, normalised, [1, C, x, y], with their places.

    Args:
        patch_size: (x, y) of a window, in pixels of the slide's level.
        overlap: of neighbouring windows, as a share of their size.
    """

    def __init__(self, patch_size: Sequence[int], overlap: float) -> None:
        super().__init__(patch_size)
        self.size = [int(size) for size in patch_size]
        self.steps = [max(1, int(size * (1 - overlap))) for size in self.size]

    def get_input_shape(self, inputs: Slide) -> tuple[int, ...]:
        """The size (x, y) of the slide."""
        return inputs.shape

    def get_padded_shape(self, inputs: Slide) -> tuple[int, ...]:
        """The same, at least a window."""
        return tuple(max(pair) for pair in zip(inputs.shape, self.size, strict=True))

    def __call__(self, inputs: Slide) -> Iterator[tuple[torch.Tensor, tuple[int, int]]]:
        """Read window after window."""
        ends = [total - size for total, size in zip(self.get_padded_shape(inputs), self.size, strict=True)]
        columns, rows = ([*range(0, end, step), end] for end, step in zip(ends, self.steps, strict=True))
        for start in ((x, y) for x in columns for y in rows):
            if inputs.in_tissue(start, self.size):
                yield torch.from_numpy(inputs.read_normalised(start, self.size))[None], start


class SlideInferer:
    """Probabilities of a slide on disk, averaged where windows overlap; NaN where there is no tissue.

    Args:
        level: of the pyramid.
        patch_size: (x, y) of a window, in pixels of the level.
        overlap: of neighbouring windows, as a share of their size.
        channels: of a slide.
        batch: windows at once; `auto`: 1 on a CPU, 4 on a GPU.
        half: `bfloat16` or `float16`; None: single precision.
        softmax: whether a pixel has one class; else each region has its own probability.
        refused: settings that need whole images, name to whether it is set.

    Raises:
        InputError: one of the settings is set.
    """

    def __init__(
        self,
        level: int,
        patch_size: Sequence[int],
        overlap: float,
        channels: int,
        batch: int | str = "auto",
        half: str | None = None,
        softmax: bool = False,
        refused: Mapping[str, Any] | None = None,
    ) -> None:
        refuse_settings(refused or {})
        self.level, self.channels, self.batch, self.softmax = level, channels, batch, softmax
        self.splitter, self.window = SlideSplitter(patch_size, overlap), PrecisionInferer(half)

    def __call__(self, slide: Slide, network: torch.nn.Module, device: str | torch.device, folder: Path) -> Any:
        """A Zarr array of probabilities [1, K, x, y] in `folder`.

        Raises:
            InputError: zarr is not installed, the slide has other channels, or a probability is NaN.
        """
        if (found := len(slide.summary[1])) != self.channels:
            raise InputError(
                f"{slide.files[0]} has {found} channels, the network expects {self.channels}: leave it out."
            )

        def infer(patches: torch.Tensor) -> torch.Tensor:
            logits = read_output(self.window(patches.to(device), network), axes=2).logits
            if not bool(logits.isfinite().all()):
                raise InputError(f"the network gives NaN or infinite values for {slide.files[0]}: train it again.")
            return (logits.softmax(1) if self.softmax else logits.sigmoid()).cpu()

        if find_spec("zarr") is None:
            raise InputError("slides are segmented with zarr, which is not installed: pip install zarr.")
        stores: dict[str, Any] = {name: str(folder / name) for name in ("store", "value_store", "count_store")}
        batch = (4 if str(device).startswith("cuda") else 1) if self.batch == "auto" else int(self.batch)
        # the splitter reads the slide, where MONAI's signature has an image or its path
        inferer: Any = PatchInferer(self.splitter, ZarrAvgMerger, batch, chunks=(1, 1, TILE, TILE), **stores)
        with torch.no_grad(), np.errstate(invalid="ignore"):  # 0 / 0 outside the tissue
            return inferer(slide, infer)


class SlideSegmenter:
    """Segments the slides of a data set one after the other; `run` as that of an evaluator.

    Args:
        dataset: the cases; a refused one is reported as others are.
        network: with its weights, on the device.
        inferer: gives the probabilities.
        records: of finished masks, and their folder.
        decision: which regions a pixel belongs to.
        regions: region name to label values.
        labels_out: region name to its value in the mask, later ones on top.
        labels_fill: the value outside all regions.
        device: of the network.
    """

    def __init__(
        self,
        dataset: PrefetchedDataset,
        network: torch.nn.Module,
        inferer: SlideInferer,
        records: MaskRecords,
        decision: RegionDecision,
        regions: Mapping[str, Sequence[int]],
        labels_out: Mapping[str, int],
        labels_fill: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.dataset, self.network, self.inferer = dataset, network, inferer
        self.records, self.device, self.fill = records, device, labels_fill
        by_class = ClassesToLabelsd("pred", decision)
        by_region = RegionsToLabelsd("pred", regions, labels_out, labels_fill)
        self.to_labels: Callable = by_class if decision.by_class else by_region

    def run(self) -> None:
        """Write the masks and their records."""
        self.network.eval()
        stopping.defer_sigterm(True)
        for entry in progress_bar(self.dataset.cases, desc="segmenting", unit="slide"):
            try:
                if "refused" in entry:
                    raise InputError(entry["refused"])
                self.segment(entry["case"], entry["image"])
            except InputError as error:
                self.dataset.refused[entry["case"]] = input_error_message(error) or str(error)
            if stopping.is_requested():
                stopping.exit_saved()
        stopping.defer_sigterm(False)

    def segment(self, case: str, image: str | Sequence[str]) -> Path:
        """Segment one slide; the file of its mask.

        Raises:
            InputError: the slide cannot be read, or the mask not be written.
        """
        slide = Slide(image, self.inferer.level)
        path = mask_path(self.records.output_dir, case, image)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=unfinished_prefix()) as folder:
            probabilities = self.inferer(slide, self.network, self.device, Path(folder))
            with atomic_write(path) as temporary:
                write_mask(temporary, slide.shape, lambda *place: self._labels(probabilities, *place))
        self.records.write(case, image, [path])
        return path

    def _labels(self, probabilities: Any, x: slice, y: slice) -> np.ndarray:
        """The values of a part of the mask [x, y]."""
        part = torch.from_numpy(np.asarray(probabilities[0, :, x, y]))
        labels = self.to_labels({"pred": part})["pred"][0]
        labels[part[0].isnan()] = self.fill
        return labels.numpy()


def write_mask(path: Path, shape: Sequence[int], labels: Callable[[slice, slice], np.ndarray]) -> None:
    """Write a mask as a tiled TIFF with levels down to 1024 pixels, the smaller ones of every second pixel.

    Args:
        path: the file.
        shape: (x, y).
        labels: returns the values, uint8 [x, y], of a part, whose slices have steps.
    """
    steps = [1]
    while max(shape) / steps[-1] > OVERVIEW:
        steps.append(steps[-1] * 2)
    with tifffile.TiffWriter(path, bigtiff=shape[0] * shape[1] > 2**31) as tiff:
        for step in steps:
            width, height = (-(-size // step) for size in shape)
            options: dict[str, Any] = {"subifds": len(steps) - 1} if step == 1 else {"subfiletype": 1}
            tiff.write(
                _tiles(labels, width, height, step),
                shape=(height, width),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="minisblack",
                **options,
            )


def _tiles(labels: Callable[[slice, slice], np.ndarray], width: int, height: int, step: int) -> Iterator[np.ndarray]:
    """The tiles [y, x] of a level, row by row."""
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            ends = min(x + TILE, width), min(y + TILE, height)
            tile = np.zeros((TILE, TILE), np.uint8)
            part = labels(*(slice(first * step, end * step, step) for first, end in zip((x, y), ends, strict=True)))
            tile[: part.shape[1], : part.shape[0]] = part.T
            yield tile
