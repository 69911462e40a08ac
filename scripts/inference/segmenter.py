"""Segmentation of arrays, images or files from Python, by a run or a package in a process of its own.

    from scripts.inference.segmenter import Segmenter

    with Segmenter("dist/brats2021_segmentation-0.1.0") as segment:
        answer = segment({"T1": a, "T1c": b, "T2": c, "FLAIR": d}, affine=affine)
    answer.mask, answer.volumes_ml, answer.warnings

`python -m bundle segment` starts the same process.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from scripts.data.case_files import image_of_case
from scripts.data.images import read_image, write_nifti
from scripts.data.scan_checks import list_warnings
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.inference.answer import measure_answer, read_channels_of
from scripts.inference.package_manifest import check_manifest, hash_files, hash_package
from scripts.inference.package_trust import Ask, require_trust
from scripts.inference.worker_process import WorkerProcess

Image = np.ndarray | nib.spatialimages.SpatialImage | str | Path


@dataclass(frozen=True)
class Answer:
    """The answer for one scan.

    Attributes:
        mask: label map on the scan's own grid, uint8, [H, W, D].
        probabilities: of each region, or with `decision: classes` of each class, float32, [H, W, D]; empty if
            `save_probabilities` is false.
        affine: 4 x 4, from voxels to mm.
        record: what `answer.json` of `python -m bundle segment` holds (docs/answer.md).
    """

    mask: np.ndarray = field(repr=False)
    probabilities: dict[str, np.ndarray] = field(repr=False)
    affine: np.ndarray = field(repr=False)
    record: dict[str, Any] = field(repr=False)

    @property
    def volumes_ml(self) -> dict[str, float]:
        """The volume of each region in ml."""
        return {name: region["volume_ml"] for name, region in self.record["regions"].items()}

    @property
    def lesions(self) -> list[dict[str, Any]]:
        """The lesions of all regions, largest first."""
        return self.record["lesions"]

    @property
    def checks(self) -> list[dict[str, Any]]:
        """What the checks of the scan found: name, status, sentence, number, limit."""
        return self.record["checks"]

    @property
    def predicted_dice(self) -> dict[str, dict[str, Any]]:
        """By region: the `value`, its `lower` bound, the `patients` that calibrated it, and a `sentence`."""
        return self.record["predicted_dice"]

    @property
    def warnings(self) -> list[str]:
        """The sentences of the checks that noted a doubt."""
        return list_warnings(self.checks)


class Segmenter:
    """Loads the network of a run or a package once, and segments scans until it is closed.

    Args:
        source: the folder of a run, or of a package that `python -m bundle export` wrote.
        trust: a package is a program; True says that you trust those who gave it to you. Packages that were exported
            on this machine, or trusted before, need no answer.
        ask: puts the question of trust to the user, in place of `trust`.
        settings: any setting of configs/inference.yaml, such as `device="cpu"` or `tta=True`.

    Raises:
        InputError: the folder is neither a run nor a package, the package is not trusted or was changed, or its network
            cannot be loaded.
    """

    def __init__(
        self, source: str | Path, *, trust: bool = False, ask: Ask = lambda question: None, **settings: Any
    ) -> None:
        source = Path(source)
        if (source / "configs" / "inference.yaml").is_file():
            hashes = hash_files(source)
            check_manifest(source, hashes)
            metadata = read_mapping(source / "configs" / "metadata.json")
            require_trust(source, hash_package(hashes), metadata, trust, ask)
        self.folder = tempfile.TemporaryDirectory(prefix="segmenter-")
        given = {"save_probabilities": True, **settings, "output_dir": f"{self.folder.name}/masks"}
        try:
            self.worker = WorkerProcess([source], given)
        except BaseException:
            self.folder.cleanup()
            raise
        self.scans = 0

    @property
    def channels(self) -> list[str]:
        """The channels that the network expects, in order."""
        return self.worker.settings["channels"]

    def __call__(
        self, images: Mapping[str, Image] | Sequence[Image] | str | Path, affine: np.ndarray | None = None
    ) -> Answer:
        """Segment one scan.

        Args:
            images: by channel name, or in the order of `channels`: an array [H, W, D], an image of nibabel, or a path;
                or the path of a folder or file with all channels.
            affine: of arrays: 4 x 4, from voxels to mm (RAS+, as in nibabel), of any orientation.

        Raises:
            InputError: a channel is missing, an array has no affine, or a check refuses the scan.
        """
        self.scans += 1
        case = str(self.scans)
        files: list[str] | str
        if isinstance(images, str | Path):
            files = self._find(Path(images).absolute())
        else:
            files = [self._write(image, affine, f"{case}-{place}") for place, image in enumerate(self._order(images))]
        *_, reply = self.worker.ask({"cases": [{"case": case, "image": files}], "resume": True})
        if "refused" in reply:
            raise InputError(reply["refused"])
        return self._read(reply, files)

    def close(self) -> None:
        """End the process, and remove its files."""
        self.worker.close()
        self.folder.cleanup()

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self, images: Mapping[str, Image] | Sequence[Image]) -> list[Image]:
        """The images in the order of the network's channels."""
        if isinstance(images, Mapping):
            if {*images} != {*self.channels}:
                raise InputError(f"images has the channels {', '.join(images)}: expected {', '.join(self.channels)}.")
            return [images[name] for name in self.channels]
        if len(images) != len(self.channels):
            raise InputError(f"{len(images)} images were given: expected {', '.join(self.channels)}, in this order.")
        return list(images)

    def _find(self, path: Path) -> list[str] | str:
        """The files of the case in a folder, or the file itself."""
        if path.is_dir():
            return image_of_case(path, self.channels, self.worker.settings["channel_files"]) or str(path)
        return str(path)

    def _write(self, image: Image, affine: np.ndarray | None, name: str) -> str:
        """The file of a channel; that of an array or image is written."""
        if isinstance(image, str | Path):
            return str(Path(image).absolute())
        voxels, own = (image, affine) if isinstance(image, np.ndarray) else (np.asanyarray(image.dataobj), image.affine)
        if own is None:
            raise InputError("an array has no place in space: give affine, 4 x 4, from voxels to mm as in nibabel.")
        kept = voxels.dtype in (np.uint8, np.int16, np.int32, np.float32)
        path = Path(self.folder.name, f"{name}.nii")
        write_nifti(path, nib.Nifti1Image(voxels if kept else voxels.astype(np.float32), own).to_bytes())
        return str(path)

    def _read(self, reply: Mapping[str, Any], files: Sequence[str] | str) -> Answer:
        masks = [Path(self.folder.name, "masks", name) for name in reply["masks"]]
        mask, *soft = (read_image(path) for path in masks)
        assert mask.affine is not None
        scan = read_channels_of(files, self.worker.settings)[0]
        record = measure_answer(reply["case"], mask, scan, reply["checks"], self.worker.settings)
        record["predicted_dice"] = reply.get("predicted_dice", {})
        names = [*self.worker.settings["outputs"]]
        maps = [
            array for image in soft for array in (np.moveaxis(image.voxels, -1, 0) if names[1:] else [image.voxels])
        ]
        for path in masks + [Path(file) for file in files if str(file).startswith(self.folder.name)]:
            path.unlink()
        return Answer(mask.voxels, dict(zip(names, maps, strict=False)), mask.affine, record)
