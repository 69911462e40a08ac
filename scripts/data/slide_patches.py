"""Data sets of patches that are read from slides on disk, for training and for validation."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Transform
from torch.utils.data import Dataset

from scripts.data.datalist import name_entry
from scripts.data.slides import Slide, refuse_settings, walk_blocks
from scripts.distributed import is_first_process
from scripts.errors import InputError
from scripts.progress import progress_bar


class LabelledSlide(NamedTuple):
    """A slide with its label.

    Attributes:
        slide: the image at the level.
        label: of the size of the level.
        counts: of the pixels on which patches are centred, in each block of the label (`walk_blocks`).
        tissue: flat indices of the tissue in the slide's overview.
    """

    slide: Slide
    label: Slide
    counts: np.ndarray
    tissue: np.ndarray


class SlidePatches(Dataset):
    """Patches cut at random from slides; an index is (case number, seed[, centre]) from `EpochSampler`.

    A share of the patches has a pixel of the label in the middle, each pixel equally often, the others one of the
    tissue. Only the tiles under a patch are read, so that memory does not depend on the size of a slide; what is kept
    of each are its overview's tissue mask and a number per block of the label.

    Args:
        data: entries with absolute paths (`scripts.data.datalist.select_cases`).
        level: of the pyramid. A label has one size, that of its slide at this level.
        patch_size: (x, y), in pixels of the level.
        transform: of `{"label": [1, x, y]}` to the masks of the regions [R, x, y].
        centres: label values on which patches are centred.
        label_share: share of the patches centred on them, where the slide has any.
        refused: settings that need whole images, name to whether it is set.
        title: of the progress bar.

    Raises:
        InputError: one of the settings is set; a slide has several raters; or see `scripts.data.slides.Slide`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        level: int,
        patch_size: Sequence[int],
        transform: Transform,
        centres: Sequence[int],
        label_share: float,
        refused: Mapping[str, Any] | None = None,
        title: str = "Reading labels",
    ) -> None:
        refuse_settings(refused or {})
        self.data = [name_entry(entry) for entry in data]
        if several := [entry["case"] for entry in self.data if "labels" in entry]:
            raise InputError(f"case {several[0]} has labels of several raters: a slide takes one; give it in the list.")
        self.level, self.patch_size, self.transform = level, [int(size) for size in patch_size], transform
        self.centres, self.label_share, self.title = np.asarray(centres), label_share, title
        self.held: list[LabelledSlide] = []

    @property
    def cases(self) -> "SlidePatches":
        """What the workflow prepares before training."""
        return self

    def prepare(self) -> None:
        """Walk through all labels once; otherwise done when the first patch is requested."""
        if len(self.patch_size) != 2:
            raise InputError(f"patch_size is {self.patch_size}: slides have two axes; give two numbers.")
        if not self.held:
            shown = progress_bar(self.data, desc=self.title, unit="slide", show=is_first_process())
            self.held = [self._open(entry) for entry in shown]

    def labelled(self) -> list[int]:
        """The numbers of the cases that have a label on which patches are centred."""
        self.prepare()
        return [number for number, held in enumerate(self.held) if held.counts.any()]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: tuple[int, ...]) -> dict[str, Any]:
        self.prepare()
        number, seed, *given = index
        slide, label, *_ = held = self.held[number]
        random = np.random.default_rng(seed)
        centre = [*map(int, np.unravel_index(given[0], slide.shape))] if given else self._draw(held, random)
        start = [
            int(np.clip(middle - size // 2, 0, max(0, total - size)))
            for middle, size, total in zip(centre, self.patch_size, slide.shape, strict=True)
        ]
        image = slide.read_normalised(start, self.patch_size)
        sizes = zip(start, self.patch_size, slide.shape, strict=True)
        middle = [min(first + size // 2, total - 1) for first, size, total in sizes]
        return {
            "image": torch.from_numpy(image).half(),
            "label": self.transform({"label": self._label(label, start)})["label"],
            "case": self.data[number]["case"],
            "seed": seed,
            "centre": int(np.ravel_multi_index(middle, slide.shape)),
        }

    def _open(self, entry: Mapping[str, Any]) -> LabelledSlide:
        slide, label = Slide(entry["image"], self.level), Slide(entry["label"], 0, "label")
        if label.shape != slide.shape:
            raise InputError(
                f"{entry['label']} has {label.shape[0]} x {label.shape[1]} pixels, level {self.level} of its image"
                f" {slide.shape[0]} x {slide.shape[1]}: the label must have the size of the level; give --level."
            )
        tissue = np.flatnonzero(slide.summary[0]).astype(np.int32)
        counts = [int(np.isin(label.read(*block), self.centres).sum()) for block in walk_blocks(label.shape)]
        return LabelledSlide(slide, label, np.array(counts), tissue)

    def _draw(self, held: LabelledSlide, random: np.random.Generator) -> list[int]:
        """The pixel (x, y) in the middle of a patch."""
        slide, label, counts, tissue = held
        if counts.any() and random.random() < self.label_share:
            start, size = walk_blocks(label.shape)[random.choice(len(counts), p=counts / counts.sum())]
            inside = np.argwhere(np.isin(label.read(start, size)[0], self.centres))
            return [int(first + offset) for first, offset in zip(start, random.choice(inside), strict=True)]
        coarse = slide.summary[0].shape
        return [
            min(int((place + random.random()) * total / n), total - 1)
            for place, total, n in zip(
                np.unravel_index(random.choice(tissue), coarse), slide.shape, coarse, strict=True
            )
        ]

    def _label(self, label: Slide, start: Sequence[int]) -> torch.Tensor:
        valid = [min(size, total - s) for s, size, total in zip(start, self.patch_size, label.shape, strict=True)]
        padded = np.zeros((1, *self.patch_size), np.float32)
        padded[:, : valid[0], : valid[1]] = label.read(start, valid)[:1]
        return torch.from_numpy(padded)


class FixedPatches(Dataset):
    """The same patches of each slide every time, as validation cases of their own, named `X_0`, `X_1` and so on.

    Args:
        patches: where they are drawn from.
        number: of patches per slide.
    """

    def __init__(self, patches: SlidePatches, number: int) -> None:
        self.patches, self.number = patches, number
        self.data = [{**entry, "case": f"{entry['case']}_{place}"} for entry in patches.data for place in range(number)]

    def prepare(self) -> None:
        """Walk through all labels once."""
        self.patches.prepare()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        slide = index // self.number
        seed = int(np.random.SeedSequence([0, index]).generate_state(1)[0])
        patch = self.patches[slide, seed]
        return {
            "image": patch["image"].float(),
            "label": patch["label"],
            "case": self.data[index]["case"],
            "voxel_ml": torch.tensor([0.001]),
        }
