"""Agreement image by image, in several processes: the numbers, the consensus masks and the picture of disagreement."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from bundle.analysis import consensus
from bundle.analysis.rater_masks import MODEL, Image
from bundle.analysis.rater_pairs import Judged, judge
from bundle.drawing.disagreement import draw
from scripts.data import pictures
from scripts.data.images import open_nifti
from scripts.parallel import map_in_processes
from scripts.scoring.prediction_files import stem


def judge_images(images: Sequence[Image], foreground: int | None, folder: Path, workers: int | None) -> list[Judged]:
    """Compare the masks of each image, and write `masks` and `disagreement` into a folder.

    Each process (None: one per core) holds the masks of one image at a time.

    Raises:
        InputError: a mask is none, masks of an image lie on different grids, or a process was killed.
    """
    one = partial(_judge_and_draw, foreground=foreground, folder=folder)
    return map_in_processes(one, images, workers, desc="comparing", unit="image")


def _judge_and_draw(image: Image, foreground: int | None, folder: Path) -> Judged:
    judged, drawn = judge(image, foreground)
    if drawn is None:
        return judged
    file = pictures.file_of(drawn.like)
    ending = file.name[len(stem(file) or "") :]
    for name, mask in drawn.consensus.items():  # in the first rater's format and names, to be read as masks again
        consensus.save(mask, drawn.like, drawn.levels, folder / "masks" / name / f"{image.name}{ending}")
    shape = next(iter(drawn.masks.values())).shape
    scan, note = (None, None) if image.scan is None else _read_scan(image.scan, shape)
    path = folder / "disagreement" / f"{image.name}.png"
    draw(drawn.masks, drawn.consensus["majority"], drawn.affine, path, scan=scan, model=MODEL)
    return judged._replace(notes=[*judged.notes, *filter(None, [note])])


def _read_scan(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray | None, str | None]:
    """The scan on the grid of the masks: grey [H, W, D] or [H, W], or a picture's colours [H, W, 3].

    None, and the reason, where it cannot be shown: no number depends on it.
    """
    missing = f"{path} is not drawn beneath the outlines"
    try:
        scan = _read_picture(path) if pictures.is_picture(path) else np.asanyarray(open_nifti(path).dataobj)
    except Exception as error:  # nibabel has its own set of errors for a damaged file
        return None, f"{missing} ({str(error)[:200]})"
    while not pictures.is_picture(path) and scan.ndim > len(shape):
        scan = scan[..., 0]  # the first of several channels
    if scan.shape[: len(shape)] != shape:
        sizes = [" x ".join(map(str, size)) for size in (scan.shape, shape)]
        return None, f"{missing} (it has {sizes[0]} voxels, the masks {sizes[1]})"
    return scan, None


def _read_picture(path: Path) -> np.ndarray:
    """As it looks, [x, y] or [x, y, colour]: colours of a palette are no intensities, but can be shown."""
    with Picture.open(path) as picture:
        if picture.mode == "P":
            return pictures.grey(np.swapaxes(np.asarray(picture.convert("RGB")), 0, 1))
    return pictures.grey(pictures.read(path))
