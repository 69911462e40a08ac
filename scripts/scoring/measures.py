"""Measures of a mask without a reference: volumes and surfaces of regions; size and position of lesions.

Positions are those of the patient: voxels are turned to axes that run to the right, front and top. Where the axes of a
scan are oblique by more than `OBLIQUE` degrees, each lesion is resampled (nearest neighbour) to the axes of the
patient, so that slices are axial; volume and surface are of the scan's own voxels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from scripts.data.images import bounding_box, connected_components, voxel_size
from scripts.scoring.diameters import CONVENTION, measure_diameters
from scripts.scoring.surfaces import surface_area, voxel_positions

OBLIQUE = 1.0  # degrees; below, slices of the scan count as axial
MIDLINE_SHARE = 0.05  # of a lesion on the other side of the midline, from which it is on both sides
DEFINITIONS = {
    "volume_ml": "number of voxels times the volume of one",
    "surface_cm2": "area of the marching-cubes surface between the centres of voxels inside and outside, as in"
    " DeepMind's surface-distance",
    "lesion": "connected voxels of a region (26 neighbours)",
    "diameter_mm": CONVENTION,
    "side": f"of the midline, left or right of the patient; both, where at least {MIDLINE_SHARE:.0%} of the lesion's"
    " voxels are on each side",
    "midline_mm": "distance from the midline to the nearest voxel centre of the lesion, 0 for a lesion on both sides;"
    " the midline is the plane fitted by least squares to the middles between the left and right border of the brain",
    "brain_surface_mm": "smallest distance from a voxel centre of the lesion to a border voxel of the brain, holes"
    " filled; 0 at the surface",
}


class Midline(NamedTuple):
    """The plane x = offset + front * y + top * z, in mm along axes to the right, front and top."""

    offset: float
    front: float
    top: float

    def distances(self, points: np.ndarray) -> np.ndarray:
        """The distance of each point [n, 3] in mm, positive to the right."""
        x, y, z = points.T
        return (x - self.offset - self.front * y - self.top * z) / np.sqrt(1 + self.front**2 + self.top**2)


class RightFrontTop(NamedTuple):
    """Voxels [H, W, D] whose axes run to the right, front and top as far as they can, affine, and spacing in mm."""

    voxels: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, ...]


def turn_to_patient(voxels: np.ndarray, affine: np.ndarray) -> RightFrontTop:
    """The same voxels with axes turned and flipped to run to the right, front and top."""
    turn = nib.io_orientation(affine)
    turned = affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)
    sizes = tuple(float(size) for size in np.round(nib.affines.voxel_sizes(turned), 5))
    return RightFrontTop(nib.apply_orientation(voxels, turn), turned, sizes)


def measure_volume_and_surface(mask: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """The `volume_ml` and `surface_cm2` of a region [H, W, D]; `spacing` in mm."""
    here = np.ascontiguousarray(mask[bounding_box(mask, margin=[1] * mask.ndim)])
    return {
        "volume_ml": int(np.count_nonzero(mask)) * voxel_size(spacing) / 1000,
        "surface_cm2": surface_area(here, spacing) / 100 if here.any() else 0.0,
    }


def measure_lesions_of(
    mask: np.ndarray, affine: np.ndarray, brain: np.ndarray | None, midline: Midline | None
) -> list[dict[str, Any]]:
    """Size and position of each lesion of a region, largest first.

    Args:
        mask: [H, W, D] boolean, turned to the patient (`turn_to_patient`).
        affine: of the mask, 4 x 4.
        brain: positions of the brain's border voxels, [n, 3] in mm; None where the brain is not known.
        midline: of the brain; None where it is not known.

    Returns:
        by lesion: `volume_ml`, `diameter_mm`, `perpendicular_mm`, the voxels and ends of both lines in mm
        (`diameter_ends`, `perpendicular_ends`), `slice` along the third axis, `centre` in mm, `side`, `midline_mm`, and
        `brain_surface_mm`; None where it cannot be measured.
    """
    numbered, sizes = connected_components(mask)
    tree = None if brain is None else cKDTree(brain)
    spacing = nib.affines.voxel_sizes(affine)
    lesions = []
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        voxels = numbered[box] == number
        own = affine @ nib.affines.from_matvec(np.eye(3), [side.start for side in box])
        points = nib.affines.apply_affine(own, np.argwhere(voxels))
        lesion = {
            "volume_ml": int(sizes[number - 1]) * voxel_size(spacing) / 1000,
            **_diameters(voxels, own, affine),
            "centre": _rounded(points.mean(axis=0)),
            **_position(points, midline),
            "brain_surface_mm": None if tree is None else round(_distance(voxels, own, tree), 2),
        }
        lesions.append(lesion)
    return sorted(lesions, key=lambda lesion: -lesion["volume_ml"])


def _distance(lesion: np.ndarray, affine: np.ndarray, tree: cKDTree) -> float:
    """The smallest distance (mm) from a voxel of a lesion to the points of a tree; that voxel is at its border."""
    border = lesion & ~ndimage.binary_erosion(lesion)
    return float(tree.query(nib.affines.apply_affine(affine, np.argwhere(border)))[0].min())


def find_midline(brain: np.ndarray, affine: np.ndarray) -> Midline | None:
    """The plane between the halves of a brain [H, W, D], turned to the patient; None where it has too few rows."""
    rows = brain.any(axis=0)
    if np.count_nonzero(rows) < 3:
        return None
    first = brain.argmax(axis=0)
    last = brain.shape[0] - 1 - brain[::-1].argmax(axis=0)
    y, z = np.nonzero(rows)
    middles = nib.affines.apply_affine(affine, np.stack([(first[y, z] + last[y, z]) / 2, y, z], axis=-1))
    weights = (last[y, z] - first[y, z] + 1).astype(float)  # short rows at the rim say least
    table = np.stack([np.ones(len(middles)), middles[:, 1], middles[:, 2]], axis=-1)
    root = np.sqrt(weights)[:, None]
    solution = np.linalg.lstsq(table * root, middles[:, 0] * root[:, 0], rcond=None)[0]
    return Midline(*map(float, solution))


def find_border_positions(brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The positions [n, 3] in mm of the border voxels of a brain [H, W, D], whose holes are filled."""
    here = bounding_box(brain, margin=[1] * 3)
    whole = ndimage.binary_fill_holes(brain[here])
    border = whole & ~ndimage.binary_erosion(whole)
    start = [side.start or 0 for side in here]
    return nib.affines.apply_affine(affine, voxel_positions(border, (1, 1, 1)) + start)


def _diameters(voxels: np.ndarray, affine: np.ndarray, whole: np.ndarray) -> dict[str, Any]:
    """The diameters of one lesion, on axial slices."""
    if oblique_by(affine) > OBLIQUE:
        voxels, affine = _resample_to_axes(voxels, affine)
    spacing = nib.affines.voxel_sizes(affine)
    found = measure_diameters(voxels, spacing)

    def place(ends: np.ndarray) -> list[list[float]]:
        indices = np.column_stack([ends / spacing[:2], np.full(2, found.slice)])
        return [_rounded(point) for point in nib.affines.apply_affine(affine, indices)]

    centre = nib.affines.apply_affine(affine, [0, 0, found.slice])
    row = nib.affines.apply_affine(np.linalg.inv(whole), centre)[2]
    return {
        "diameter_mm": round(found.longest, 2),
        "perpendicular_mm": round(found.perpendicular, 2),
        "slice": round(float(row)),
        "diameter_ends": place(found.ends),
        "perpendicular_ends": place(found.perpendicular_ends),
    }


def oblique_by(affine: np.ndarray) -> float:
    """The largest angle in degrees between an axis of voxels and the nearest axis of the patient."""
    axes = np.abs(affine[:3, :3] / nib.affines.voxel_sizes(affine))
    return float(np.degrees(np.arccos(np.clip(axes.max(axis=0).min(), 0, 1))))


def _resample_to_axes(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A lesion on a grid along the patient's axes, with the spacing of its voxels; nearest neighbour."""
    padded = np.pad(voxels, 1)
    affine = affine @ nib.affines.from_matvec(np.eye(3), [-1] * 3)
    spacing = nib.affines.voxel_sizes(affine)
    corners = np.stack(np.meshgrid(*([0, size - 1] for size in padded.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    ends = nib.affines.apply_affine(affine, corners)
    shape = np.ceil(np.ptp(ends, axis=0) / spacing).astype(int) + 1
    target = nib.affines.from_matvec(np.diag(spacing), ends.min(axis=0))
    back = np.linalg.inv(affine) @ target
    moved = ndimage.affine_transform(
        padded.astype(np.uint8), back[:3, :3], back[:3, 3], output_shape=tuple(shape), order=0
    )
    if not moved.any():  # a lesion of a few voxels may fall between the new ones
        return voxels, nib.affines.from_matvec(np.diag(spacing), affine[:3, 3] + spacing)
    return moved > 0, target


def _position(points: np.ndarray, midline: Midline | None) -> dict[str, Any]:
    if midline is None:
        return {"side": None, "midline_mm": None}
    distances = midline.distances(points)
    right = float((distances > 0).mean())
    if min(right, 1 - right) >= MIDLINE_SHARE:
        return {"side": "both", "midline_mm": 0.0}
    return {"side": "right" if right > 0.5 else "left", "midline_mm": round(float(np.abs(distances).min()), 2)}


def _rounded(point: np.ndarray) -> list[float]:
    return [round(float(number), 2) for number in point]
