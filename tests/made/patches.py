"""A case with a small box of tumour, and patches cut from it."""

import torch
from monai.transforms import RandCropByPosNegLabeld

from scripts.data.patch_dataset import PatchDataset
from scripts.data.regions import RegionIndicesd


def box(size: int = 40, tumour: bool = True) -> dict[str, torch.Tensor | str]:
    """A case in memory: brain everywhere, with a tumour of 27 voxels in the middle."""
    label = torch.zeros(1, size, size, size)
    if tumour:
        label[0, 19:22, 19:22, 19:22] = 1
    return {"case": "box", "image": torch.rand(1, size, size, size) + 1, "label": label}


INDICES = RegionIndicesd("label", {"tumour": [1]})


def cut_from(entries: list[dict], share: float = 0.5, size: int = 8, **others) -> PatchDataset:
    crop = RandCropByPosNegLabeld(
        ["image", "label"], "label", [size] * 3, pos=share, neg=1 - share,
        fg_indices_key="label_fg_indices", bg_indices_key="label_bg_indices",
    )  # fmt: skip
    return PatchDataset(entries, INDICES, crop, keep=["label_fg_indices", "label_bg_indices"], **others)
