"""Pictures of lesions at each time point, in planes of the first one: the same place in each column."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from bundle.drawing.answer_planes import ScanPictures
from bundle.followup.lesions import NEW
from bundle.followup.views import FollowUp, TimeView
from scripts.data.images import bounding_box
from scripts.scoring.case import region_mask

MOST_LESIONS, MOST_TIMES = 4, 6  # rows and columns of pictures
MARGIN = 4  # voxels around the brain


class PictureRow(NamedTuple):
    """The pictures of one lesion: its heading, and a PNG with its caption for each time point."""

    heading: str
    pictures: list[tuple[bytes, str]]


def draw_lesions(follow: FollowUp, lesions: Sequence[Mapping[str, Any]]) -> list[PictureRow]:
    """An axial and a coronal row through the largest lesion, and an axial one through each of a few others.

    Nothing is drawn of scans that have more than the brain, unless the user asked for it.
    """
    if not follow.drawn or not lesions:
        return []
    views = [follow.views[k] for k in _spread(len(follow.views))]
    here = bounding_box(np.any([next(iter(view.shown.values())) > 0 for view in views], axis=0), [MARGIN] * 3)
    first, rows = next(iter(follow.regions)), []
    for place, lesion in enumerate(_choose(lesions)):
        channel = follow.channels[0 if lesion["region"] == first else -1]
        centre = next(time["centre"] for time in lesion["times"] if time["centre"])
        for plane in ("axial", "coronal") if place == 0 else ("axial",):
            pictures = [
                (_draw(follow, view, channel, plane, centre, here), f"Day {view.day}, {channel}") for view in views
            ]
            rows.append(PictureRow(f"{lesion['region']} {lesion['number']}, {plane}", pictures))
    return rows


def _choose(lesions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The largest lesions of the first two regions, new ones, then the largest of other regions."""
    largest = [lesion for lesion in lesions if lesion["number"] == 1]
    new = [lesion for lesion in lesions if any(time["event"] == NEW for time in lesion["times"])]
    chosen = [*largest[:2], *new, *largest[2:]]
    unique = {(lesion["region"], lesion["number"]): lesion for lesion in chosen}
    return [*unique.values()][:MOST_LESIONS]


def _spread(count: int) -> list[int]:
    """Evenly spaced time points, the first and the last among them."""
    return sorted({round(float(place)) for place in np.linspace(0, count - 1, min(count, MOST_TIMES))})


def _draw(
    follow: FollowUp, view: TimeView, channel: str, plane: str, centre: Sequence[float], here: tuple[slice, ...]
) -> bytes:
    assert follow.grid is not None
    start = [side.start or 0 for side in here]
    affine = follow.grid.affine @ nib.affines.from_matvec(np.eye(3), start)
    regions = {name: region_mask(view.labels[here], values) for name, values in follow.regions.items()}
    scan = view.shown[channel][here]
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), centre)).astype(int)
    pictures = ScanPictures(scan, regions, follow.grid.spacing)
    return pictures.draw_plane(plane, np.clip(voxel, 0, np.array(scan.shape) - 1).tolist())
