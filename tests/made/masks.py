"""Scans of an oblique head, and masks written for them as the evaluator writes them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from scripts.data import pictures
from scripts.inference.mask_records import MaskRecords
from scripts.inference.mask_saver import MaskSaver


def names(cases: list[dict]) -> list[str]:
    return [case["case"] for case in cases]


TWO = [{"case": "a", "image": "a.nii"}, {"case": "b", "image": "b.nii"}]


def oblique(degrees: float = 12.0) -> np.ndarray:
    """LPS, voxels of 1 x 1.5 x 3 mm, turned about the long axis of the head."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.0, -1.5, 3.0])
    affine[:3, 3] = [90, 120, -70]
    return affine


def records_of(folder, value: bytes = b"weights", settings: dict | None = None) -> MaskRecords:
    """The records of a folder of masks, for weights that are in a file next to it."""
    weights = Path(folder).with_name("weights.pt")
    weights.write_bytes(value)
    return MaskRecords(folder, [weights], settings or {})


def save_masks(
    folder, source: nib.Nifti1Image | str, mask: np.ndarray, probabilities=None, case: str = "a", records=None
) -> None:
    """What the evaluator does with one case whose scan is in the file of, or at, `source`."""
    name = source if isinstance(source, str) else source.get_filename()
    image = MetaTensor(torch.zeros(1, *mask.shape), meta={"filename_or_obj": name})
    item = {"image": image, "pred": torch.from_numpy(mask)[None].float()}
    if probabilities is not None:
        item["probabilities"] = torch.from_numpy(probabilities)
    engine = Engine(lambda *_: [item])
    entries = [{"case": case, "image": name}]
    MaskSaver(folder, records=records, entries=entries).attach(engine)
    engine.run([[{"case": case}]])


def scan(path, shape=(5, 6, 7), qform: int = 1, sform: int = 1, affine: np.ndarray | None = None) -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.zeros(shape, np.float32), None)
    image.header.set_zooms((1.0, 1.5, 3.0)[: len(shape)])
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(oblique() if affine is None else affine, qform)
    image.set_sform(oblique() if affine is None else affine, sform)
    nib.save(image, path)
    return nib.load(path)


MASK = np.random.default_rng(0).choice([0, 255], (5, 6)).astype(np.uint8)  # [x, y]


def save_picture_masks(
    folder, images: dict[str, str], stacks: bool = True, on_case=lambda case: None, records=None
) -> None:
    """What the evaluator does with a case for each image; all masks differ. `on_case` is called with each case."""

    def segment(_: Engine, batch: list[dict]) -> list[dict]:
        on_case(batch[0]["case"])
        return [{"image": batch[0]["image"], "pred": batch[0]["pred"]}]

    engine = Engine(segment)
    MaskSaver(folder, stacks, records).attach(engine)
    batches = []
    for number, (case, name) in enumerate(images.items()):
        image = MetaTensor(torch.zeros(1, 5, 6), meta={"filename_or_obj": name})
        batches.append([{"case": case, "image": image, "pred": torch.from_numpy(MASK - number)[None].float()}])
    engine.run(batches)


def stack_of(path, number: int) -> dict[str, str]:
    pictures.write_picture(path, *np.zeros((number, 5, 6), np.uint8))
    return {f"a_{k}": f"{path}#{k}" for k in range(number)}
