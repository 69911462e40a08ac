"""The second stage of a cascade: masks of a first stage as further input channels, one binary channel per label.

In training the mask of a case is by a network that never saw it, from the folder of a cross-validation; otherwise the
second stage would learn to trust masks that are better than any of a new patient (as in nnU-Net, Isensee et al. 2021).
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialResample, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from scripts.data.augmentation import AugmentedBatch, PreparedBatch
from scripts.data.datalist import datalist_hash
from scripts.data.images import ENDINGS, connected_components, read_labels
from scripts.errors import InputError
from scripts.files import read_mapping

RECORD = "crossval.json"  # of a cross-validation
NOT_GIVEN = "first_stage is not given: the folder of its cross-validation, --first_stage runs/cv_coarse."


def check_first_stage(folder: str | os.PathLike | None, datalist: Mapping[str, Any], context: int = 0) -> None:
    """Check that a first stage has a mask of every case of the folds, by a network that was trained without it.

    Args:
        folder: of its cross-validation.
        datalist: of the second stage.
        context: the setting, whose coarse view cannot show masks.

    Raises:
        InputError: there is none, or one of another data list, which lacks a fold or a mask, was itself given masks, or
            was trained on a patient that it segmented.
    """
    if folder is None:
        raise InputError(NOT_GIVEN)
    if context:
        raise InputError(f"context is {context}, which a second stage cannot have: leave one of them out.")
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise InputError(
            f"first_stage {folder} is not a cross-validation: expected {folder / RECORD} of `crossval`; the masks of a"
            " network that was trained on the same patients are better than any of a new one."
        )
    record = read_mapping(folder / RECORD)
    if record["sha256"] != datalist_hash(datalist):
        raise InputError(f"first_stage {folder} has another data list: both stages need the same list and folds.")
    entries = [entry for entry in datalist["training"] if "fold" in entry]
    for fold in sorted({entry["fold"] for entry in entries}):
        run = folder / f"fold{fold}"
        if fold not in record["folds"] or not (run / "environment.json").is_file():
            raise InputError(f"first_stage {folder} lacks fold {fold}: train it, all folds are needed.")
        if "first_stage" in read_mapping(run / "settings.yaml"):
            raise InputError(f"first_stage {folder} is a second stage itself: give one without masks as input.")
        trained = read_mapping(run / "environment.json").get("patients", {})
        seen = {*trained.get("training", ())} & {entry["patient"] for entry in entries if entry["fold"] == fold}
        if seen or "unrecorded" in trained:
            who = f"patient {min(seen)}, whom it segmented" if seen else "patients that are not recorded"
            raise InputError(f"{run} was trained on {who}: a first stage must not have seen the patients of its masks.")
    for entry in entries:
        find_mask([folder / "masks"], entry["case"])


def find_mask(folders: Sequence[str | os.PathLike], case: str) -> Path:
    """The file of a case's mask in the first of the folders that has one.

    Raises:
        InputError: none has.
    """
    files = (Path(folder, f"{case}{ending}") for folder in folders for ending in ENDINGS)
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise InputError(
            f"{' and '.join(map(str, folders))} hold no first-stage mask of case {case}: finish the cross-validation of"
            " the first stage; of new scans, `python -m bundle segment` and `evaluate` make it."
        )
    return found


class AppendMaskChannelsd(MapTransform):
    """Append the first-stage mask of a case to its prepared image [C, ...], one channel of 0 and 1 per label.

    The mask is brought from the scan's own grid to that of the image by nearest neighbour, either where a voxel lies
    midway between two; 0 beyond it.

    Args:
        keys: of images, with their affine; `case` of the data names the case.
        first_stage: the folder of its cross-validation, with `masks`; None is refused when a case is prepared.
        labels: label name to value.
        masks: folders to search in this order, in place of those masks.

    Raises:
        InputError: a mask is missing, or cannot be read.
    """

    def __init__(
        self,
        keys: KeysCollection,
        first_stage: str | None,
        labels: Mapping[str, int],
        masks: Sequence[str] | None = None,
    ) -> None:
        super().__init__(keys)
        self.folders = [*masks] if masks else [f"{first_stage}/masks"] if first_stage else []
        self.values = [value for value in labels.values() if value]
        files = (file for folder in self.folders for file in sorted(Path(folder).glob("*")) if file.is_file())
        # part of the name of a cached case: other masks are another input
        self.files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append the channels to each image."""
        appended = dict(data)
        for key in self.key_iterator(appended):
            image = appended[key]
            if not self.folders:
                raise InputError(NOT_GIVEN)
            mask = self._read(str(data["case"]), image)
            channels = torch.cat([mask == value for value in self.values]).to(image.device)
            both = torch.cat([convert_to_tensor(image, dtype=torch.float32, track_meta=False), channels.float()])
            appended[key] = convert_to_dst_type(both, image, dtype=torch.float32)[0]
        return appended

    def _read(self, case: str, image: MetaTensor) -> torch.Tensor:
        found = read_labels(find_mask(self.folders, case), self.values)
        axes = image.dim() - 1
        affine = np.eye(4) if found.affine is None else found.affine
        voxels = found.voxels.reshape(*found.voxels.shape, *[1] * (axes - found.voxels.ndim))
        mask = MetaTensor(torch.from_numpy(voxels.astype(np.float32))[None], affine=torch.from_numpy(affine))
        to_image = SpatialResample(mode="nearest", padding_mode="zeros", dtype=np.float32)
        moved = to_image(mask, dst_affine=image.affine, spatial_size=tuple(image.shape[1:]))
        return convert_to_tensor(moved, track_meta=False).round()


class CascadeBatch(AugmentedBatch):
    """An `AugmentedBatch` for images with mask channels: they move with the label, by nearest neighbour, and keep their
    values in changes of intensity; then they are corrupted as a first stage errs.

    Args:
        first: number of the first mask channel.
        count: of mask channels.
        morphology: probability per patch of dilation, erosion, closing or opening of each label with probability 0.5,
            by a ball of 1 to 8 voxels.
        removal: probability per patch that each label loses, with probability 0.5, one component smaller than 15 % of
            the patch.
        others: arguments of `AugmentedBatch`.
    """

    def __init__(
        self,
        augmentation: Transform,
        first: int,
        count: int,
        morphology: float = 0.4,
        removal: float = 0.2,
        patch_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(augmentation, patch_size)
        self.first, self.count = first, count
        self.morphology, self.removal = morphology, removal

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image [B, C, ...] and label [B, R, ...], both float32 on `device`."""
        if isinstance(batch, PreparedBatch):
            return super().__call__(batch, device, non_blocking, **kwargs)
        image, label = (batch[key].to(device, non_blocking=True).float() for key in ("image", "label"))
        regions = label.shape[1]
        scan, masks = image[:, : self.first], image[:, self.first : self.first + self.count]
        moved = {**batch, "image": scan, "label": torch.cat([label, masks], 1)}
        image, label = super().__call__(moved, device, non_blocking, **kwargs)
        label, masks = label[:, :regions], label[:, regions:]
        for patch, seed in zip(masks, batch["seed"].tolist(), strict=True):
            corrupt_masks(patch, np.random.default_rng([seed, 2]), self.morphology, self.removal)
        return torch.cat([image[:, : self.first], masks, image[:, self.first :]], 1), label.contiguous()


def corrupt_masks(masks: torch.Tensor, rng: np.random.Generator, morphology: float, removal: float) -> None:
    """Change masks of labels [L, ...], zeros and ones that exclude each other, in place, as a first stage errs.

    Voxels added to a label leave the others; voxels removed are background. See `CascadeBatch` for the arguments.
    """
    if rng.random() < morphology:
        for channel in rng.permutation(len(masks)):
            if rng.random() < 0.5:
                changed = change_shape(masks[channel] > 0, str(rng.choice(SHAPES)), int(rng.integers(1, 9)))
                masks.masked_fill_(changed & (masks[channel] == 0), 0)
                masks[channel] = changed.float()
    if rng.random() < removal:
        for mask in masks:
            if rng.random() < 0.5:
                numbered, sizes = connected_components(mask.numpy(force=True) > 0)
                small = np.flatnonzero(sizes < 0.15 * mask.numel()) + 1
                if small.size:
                    mask[torch.from_numpy(numbered == rng.choice(small)).to(mask.device)] = 0


SHAPES = ("dilation", "erosion", "closing", "opening")


def change_shape(mask: torch.Tensor, operation: str, radius: int) -> torch.Tensor:
    """Dilation, erosion, closing or opening of a mask [...], bool, by a ball; the rim of a patch does not erode.

    Args:
        mask: on any device.
        operation: one of `SHAPES`.
        radius: of the ball, in voxels.
    """
    for grows in {"dilation": (1,), "erosion": (0,), "closing": (1, 0), "opening": (0, 1)}[operation]:
        mask = _dilate(mask, radius) if grows else ~_dilate(~mask, radius)
    return mask


def _dilate(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """By a product of Fourier transforms, whose time does not depend on the radius, and without waiting for a GPU."""
    axes = tuple(range(mask.dim()))
    sizes = [length + radius for length in mask.shape]  # what leaves at one end must not enter at the other
    ball = torch.zeros([1] * mask.dim(), device=mask.device)
    for axis, length in enumerate(sizes):
        steps = torch.arange(length, device=mask.device)
        ball = ball + torch.minimum(steps, length - steps).square().view(*[-1 if axis == own else 1 for own in axes])
    product = torch.fft.rfftn((ball <= radius**2).float(), dim=axes) * torch.fft.rfftn(mask.float(), sizes, axes)
    return torch.fft.irfftn(product, sizes, axes)[tuple(slice(length) for length in mask.shape)] > 0.5
