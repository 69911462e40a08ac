"""The page of one answer, `answer.html`: verdict, warnings, pictures, viewer, measures, checks, network."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.drawing.answer_planes import PLANES, ScanPictures, region_colours
from bundle.drawing.doubtful_slices import draw_doubtful_slice
from bundle.drawing.slices import intensity_window
from bundle.reporting.page import embed_png, load_template
from bundle.reporting.sentences import describe_regions
from scripts.data.check_results import NOTE, REFUSE
from scripts.data.images import bounding_box
from scripts.files import write_text
from scripts.scoring.case import region_mask
from scripts.scoring.measures import turn_to_patient

SHOWN_LESIONS = 5  # rows of the table by region; answer.json has all
MOST_DOUBTS = 4  # pictures of what checks objected to
MARGIN = 4  # voxels around the head
MOST_VOXELS = 16e6  # of a channel in the viewer; a larger one is shown at every second voxel


def write_answer_page(
    path: Path,
    answer: Mapping[str, Any],
    channels: Mapping[str, np.ndarray],
    mask: np.ndarray | None,
    drawn: bool = True,
    affine: np.ndarray | None = None,
) -> None:
    """Write the page of an answer, whole or not at all; it needs no other file and no network.

    Args:
        path: the file.
        answer: as in answer.json.
        channels: name to voxels [H, W, D] in the file's own orientation; empty where they cannot be shown.
        mask: the label map, on the same grid; None for a scan that was refused.
        drawn: whether the scan may be shown; a head with its face is not, unless the user asks for it.
        affine: 4 x 4, to mm, for pictures of what checks objected to; None: without them.
    """
    shown = _View(answer, channels, mask) if drawn and mask is not None else None
    page = load_template("answer.html").render(
        a=answer,
        network=answer["network"],
        colours=region_colours([*answer.get("regions", {})]),
        lesions=[lesion for lesion in answer.get("lesions", []) if lesion["number"] <= SHOWN_LESIONS],
        planes=shown.planes() if shown else [],
        diameters=shown.diameters() if shown else [],
        view=shown.data() if shown else None,
        volumes=shown.volumes() if shown else {},
        drawn=drawn,
        doubts=_draw_doubts(answer, channels, affine) if drawn and affine is not None else [],
        steps=[
            {"source": embed_png((path.parent / picture["file"]).read_bytes()), "words": picture["words"]}
            for picture in answer.get("preparation", {}).get("pictures", [])
        ],
        predicted_reason=_common_reason(answer.get("predicted_dice", {})),
        meanings=describe_regions(answer.get("regions", {})),
    )
    write_text(path, page)


def _common_reason(predicted: Mapping[str, Mapping[str, Any]]) -> str:
    """Why no Dice is predicted for any region, where it is the same reason for all."""
    sentences = {own["sentence"] for own in predicted.values()}
    unknown = all(own["value"] is None for own in predicted.values())
    return sentences.pop() if unknown and len(sentences) == 1 else ""


def _draw_doubts(
    answer: Mapping[str, Any], channels: Mapping[str, np.ndarray], affine: np.ndarray
) -> list[dict[str, str]]:
    """A picture of each place that a check objected to."""
    found: dict[str, Any] = {}  # by place, so that each is drawn once
    for check in answer["checks"]:
        if check["status"] in (NOTE, REFUSE) and check.get("place") and check["place"]["channel"] in channels:
            found.setdefault(str(check["place"]), check)
    shown = [*found.values()][:MOST_DOUBTS]
    words = "{}: {}, next to a channel whose brain is outlined on both"
    return [
        {
            "source": embed_png(draw_doubtful_slice(channels, affine, check["place"])),
            "words": words.format(check["name"].capitalize(), check["place"]["channel"]),
        }
        for check in shown
    ]


class _View:
    """A scan and its mask, turned to the patient and cropped to the head."""

    def __init__(self, answer: Mapping[str, Any], channels: Mapping[str, np.ndarray], mask: np.ndarray) -> None:
        affine = np.array(answer["grid"]["affine"])
        self.answer = answer
        turned = turn_to_patient(mask, affine)
        scans = {name: turn_to_patient(voxels, affine).voxels for name, voxels in channels.items()}
        seen = np.any([voxels != voxels[0, 0, 0] for voxels in scans.values()], axis=0) | (turned.voxels > 0)
        here = bounding_box(seen, [MARGIN] * 3)
        self.start = np.array([side.start or 0 for side in here])
        self.labels = np.ascontiguousarray(turned.voxels[here])
        self.scans = {name: np.ascontiguousarray(voxels[here], np.float32) for name, voxels in scans.items()}
        self.spacing = turned.spacing
        self.affine = turned.affine @ nib.affines.from_matvec(np.eye(3), self.start)
        self.regions = {name: region_mask(self.labels, own["labels"]) for name, own in answer["regions"].items()}
        self.centre = self._centre()

    def _centre(self) -> list[int]:
        """The voxel at the centre of the largest lesion of the first region that has one; else that of the scan."""
        shape = np.array(self.labels.shape)
        if not self.answer["lesions"]:
            return (shape // 2).tolist()
        centre = self._voxel(self.answer["lesions"][0]["centre"])
        return np.clip(np.rint(centre), 0, shape - 1).astype(int).tolist()

    def _voxel(self, point: Sequence[float]) -> np.ndarray:
        return nib.affines.apply_affine(np.linalg.inv(self.affine), point)

    def _channel(self, first: bool) -> str:
        """The channel on which a region is seen best: FLAIR for the first, T1c for others, where there are such."""
        wanted = "FLAIR" if first else "T1c"
        return wanted if wanted in self.scans else next(iter(self.scans))

    def planes(self) -> list[dict[str, str]]:
        name = self._channel(first=True)
        pictures = ScanPictures(self.scans[name], self.regions, self.spacing)
        found, where = [], "largest lesion" if self.answer["lesions"] else "middle"
        for plane in PLANES:
            words = f"{plane.capitalize()} plane of {name} through the {where}"
            found.append({"source": embed_png(pictures.draw_plane(plane, self.centre)), "words": words})
        return found

    def diameters(self) -> list[dict[str, str]]:
        found = []
        for place, region in enumerate(self.regions):
            own = [lesion for lesion in self.answer["lesions"] if lesion["region"] == region]
            if not own:
                continue
            lesion, name = own[0], self._channel(first=place == 0)
            ends = [
                np.array([self._voxel(point) for point in lesion[key]])
                for key in ("diameter_ends", "perpendicular_ends")
            ]
            shown = {**lesion, "slice": round(float(ends[0][0, 2]))}
            pictures = ScanPictures(self.scans[name], self.regions, self.spacing)
            words = f"Largest lesion of {region} on {name}: axial slice with its longest diameter and the perpendicular"
            found.append({"source": embed_png(pictures.draw_diameters(region, shown, ends)), "words": words})
        return found

    @property
    def _step(self) -> int:
        return 1 if self.labels.size <= MOST_VOXELS else 2

    def data(self) -> dict[str, Any]:
        step = self._step
        values = {name: own["labels"] for name, own in self.answer["regions"].items()}
        return {
            "shape": [-(-size // step) for size in self.labels.shape],
            "spacing": [size * step for size in self.spacing],
            "centre": [place // step for place in self.centre],
            "affine": (self.affine @ np.diag([step, step, step, 1.0])).tolist(),
            "channels": [*self.scans],
            "start": [*self.scans].index(self._channel(first=True)),
            "regions": [
                {"name": name, "values": values[name], "colour": colour}
                for name, colour in region_colours([*values]).items()
            ],
        }

    def volumes(self) -> dict[str, str]:
        """The mask and each channel as base64 of gzip of uint8, the first axis fastest."""
        step = (slice(None, None, self._step),) * 3
        packed = {"mask": _pack(self.labels[step].astype(np.uint8))}
        for place, voxels in enumerate(self.scans.values()):
            low, high = intensity_window(voxels)
            grey = np.clip((voxels[step] - low) / (high - low), 0, 1) * 255
            packed[f"channel-{place}"] = _pack(grey.astype(np.uint8))
        return packed


def _pack(volume: np.ndarray) -> str:
    return base64.b64encode(gzip.compress(volume.tobytes(order="F"), compresslevel=6, mtime=0)).decode()
