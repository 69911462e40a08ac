"""Foreground-restricted Rand and information scores of ISBI 2012: whether predicted boundaries keep cells apart.

Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms for connectomics, Front Neuroanat
9:142, 2015. A segment is a connected component of a boundary's complement, across faces. Only pixels inside true
segments count. The predicted boundary is thinned first (a watershed lets the segments grow until a line of one pixel is
left), so that its thickness makes no difference; each pixel of the line is a segment of its own.
"""

import numpy as np
from scipy import ndimage


def measure_cells(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """The scores of two boundaries, boolean masks [H, W] or [H, W, D] of the whole image (see `segment_metrics`)."""
    return segment_metrics(enclosed_segments(truth), thin_boundary(prediction))


def enclosed_segments(boundary: np.ndarray) -> np.ndarray:
    """The segments enclosed by a boundary, numbered from 1; 0 on the boundary."""
    return ndimage.label(~boundary)[0]


def thin_boundary(boundary: np.ndarray) -> np.ndarray:
    """The segments of a boundary, grown until a line of one pixel (0) is left between them."""
    from skimage.segmentation import watershed  # with those below 0.4 s, which scoring of regions need not wait for

    return watershed(boundary, enclosed_segments(boundary), connectivity=1, watershed_line=True)


def segment_metrics(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Rand and information scores of two maps of numbered segments; pixels that are 0 in the truth do not count.

    Split scores fall if a true segment is cut, merge scores if true segments run together; F is their harmonic mean. A
    score whose denominator is 0 is 1: there was nothing to cut, or nothing to merge.
    """
    from scipy.stats import entropy
    from skimage.metrics import adapted_rand_error, variation_of_information

    inside = truth > 0
    true, predicted = truth[inside].astype(np.int64), prediction[inside].astype(np.int64)
    line = predicted == 0
    predicted[line] = predicted.max(initial=0) + 1 + np.arange(np.count_nonzero(line))
    if not true.size:
        return dict.fromkeys(
            ("rand_f", "rand_split", "rand_merge", "information_f", "information_split", "information_merge"), 1.0
        )
    with np.errstate(invalid="ignore"):  # 0 / 0 where no two pixels share a segment
        rand_error, rand_split, rand_merge = adapted_rand_error(true, predicted, ignore_labels=())
    of_truth, of_prediction = (float(entropy(np.bincount(numbers), base=2)) for numbers in (true, predicted))
    shared = of_truth - float(variation_of_information(true, predicted)[1])  # without H(truth | prediction)
    return {
        "rand_f": float(np.nan_to_num(1 - rand_error, nan=1)),
        "rand_split": float(np.nan_to_num(rand_split, nan=1)),
        "rand_merge": float(np.nan_to_num(rand_merge, nan=1)),
        "information_f": _share(2 * shared, of_truth + of_prediction),
        "information_split": _share(shared, of_prediction),
        "information_merge": _share(shared, of_truth),
    }


def _share(part: float, whole: float) -> float:
    """part / whole, at most 1 in spite of rounding; 1 if the whole is 0."""
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else 1.0
