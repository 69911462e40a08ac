"""The brain or head in a channel, without a network, and the value of the background."""

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

# Above these shares of dark faces, and below this brightness of dark to bright, an image has background
BACKGROUND_FACES, BACKGROUND_RATIO = 0.5, 0.2


def background_value(array: np.ndarray) -> tuple[float, float]:
    """The most frequent value on the faces of a volume, or the sides of a picture, and its share of them.

    Corners may differ; preprocessing is stricter (`scripts.data.background.ZeroBackgroundd`).
    """
    faces = [np.moveaxis(array, axis, 0)[end].ravel() for axis in range(array.ndim) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())


def find_brain(array: np.ndarray, outside: float, flat: float) -> tuple[np.ndarray, bool]:
    """The mask of the brain or head, and whether the image is skull-stripped.

    In a skull-stripped image everything outside has one value (not always 0: z-scored images have another). In others
    the head is above Otsu's threshold (1979), with its holes filled; the mask is full where there is no background.

    Args:
        array: [H, W, D].
        outside: its most frequent value on the faces.
        flat: the share of the faces that have it (`background_value`).
    """
    mask = array != np.float32(outside)
    if flat > 0.7 and mask.mean() < 0.7:
        return mask, True
    signal = np.abs(array - np.float32(outside))
    if not _has_background(array):
        return np.ones_like(mask), False
    head, count = ndimage.label(ndimage.binary_fill_holes(signal > _threshold(signal)))
    if not count:
        return mask, False
    return head == 1 + np.bincount(head.ravel())[1:].argmax(), False


def _has_background(coarse: np.ndarray) -> bool:
    """Whether there is air around the head: most of the faces are dark, and much darker than the rest."""
    above = coarse - np.float32(np.percentile(coarse, 0.1))
    bright = above > _threshold(above)
    if bright.all() or not bright.any():
        return True
    faces = np.concatenate(
        [np.moveaxis(bright, axis, 0)[end].ravel() for axis in range(bright.ndim) for end in (0, -1)]
    )
    ratio = float(np.median(above[~bright]) / np.median(above[bright]))
    return 1 - faces.mean() > BACKGROUND_FACES and ratio < BACKGROUND_RATIO


def _threshold(signal: np.ndarray) -> float:
    """Otsu's threshold (1979) between head and background; the brightest 1 % is clipped."""
    return float(threshold_otsu(np.minimum(signal, np.percentile(signal, 99))))
