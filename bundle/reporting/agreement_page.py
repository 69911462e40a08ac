"""The page of rater agreement, `raters.html`, with its tables, masks and pictures."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image as Picture

from bundle.analysis.agreement_summary import summarise_agreement
from bundle.analysis.consensus import CONSENSUS, write_consensus
from bundle.analysis.rater_masks import MODEL, Image
from bundle.analysis.rater_pairs import COLUMNS, METRICS, ImageAgreement, compare_masks, require_pairs
from bundle.drawing.disagreement import draw_disagreement
from bundle.reporting import words
from bundle.reporting.agreement_figures import draw_dice_by_image, draw_dice_by_rater, draw_size_bias
from bundle.reporting.agreement_sentences import agreement_findings, agreement_limits, agreement_warnings
from bundle.reporting.page import embed_png, load_template
from scripts.data import pictures
from scripts.data.images import read_stored
from scripts.errors import InputError
from scripts.files import unfinished_prefix, write_json, write_text
from scripts.parallel import map_in_processes
from scripts.scoring.prediction_files import image_stem
from scripts.scoring.tables import write_table

MOST_PICTURES = 24  # on the page; those with the least agreement
SHOWN = ("dice", "hd95", "nsd_2mm")  # in the tables of pairs and persons


def write_agreement(
    raters: Mapping[str, Path],
    images: Sequence[Image],
    out: Path,
    foreground: int | None = None,
    workers: int | None = None,
    title: str | None = None,
    model: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Write raters.html, raters.json, pairs.csv, masks and disagreement into a new folder, all or nothing.

    `foreground` is the value of the object in the masks, None for all but 0; `workers` are processes, None for one per
    core. Returns the content of raters.json.

    Raises:
        InputError: `out` is not empty or cannot be written, a file is not a mask, masks of an image lie on different
            grids, there is nothing to compare, or a process was killed.
    """
    with _written_whole(out) as folder:
        one = partial(_compare_and_draw, foreground=foreground, folder=folder)  # the masks of one image at a time
        compared = map_in_processes(one, images, workers, desc="comparing", unit="image")
        require_pairs(compared, foreground)
        pairs = pd.DataFrame([row for one in compared for row in one.rows], columns=COLUMNS)
        about = {
            "title": str(title or f"Agreement of {len(raters)} raters"),
            "folders": {rater: str(path.resolve()) for rater, path in raters.items()},
            "model_folder": None if model is None else str(Path(str(model)).resolve()),
            "foreground": foreground,
        }
        summary = summarise_agreement(compared, pairs, list(raters), model is not None, about)
        write_table(pairs, folder / "pairs.csv")
        write_json(folder / "raters.json", summary)
        write_text(folder / "raters.html", _render(summary, pairs, folder))
    return summary


def _compare_and_draw(image: Image, foreground: int | None, folder: Path) -> ImageAgreement:
    compared, drawn = compare_masks(image, foreground)
    if drawn is None:
        return compared
    file = pictures.file_of_page(drawn.like)
    ending = file.name[len(image_stem(file) or "") :]
    for name, mask in drawn.consensus.items():  # in the first rater's format and names, to be read as masks again
        write_consensus(mask, drawn.like, drawn.levels, folder / "masks" / name / f"{image.name}{ending}")
    majority = drawn.consensus["majority"]
    scan, note = (None, None) if image.scan is None else _read_scan(image.scan, majority.shape)
    draw_disagreement(drawn.masks, majority, drawn.affine, folder / "disagreement" / f"{image.name}.png", scan, MODEL)
    return compared._replace(notes=[*compared.notes, note] if note else compared.notes)


def _read_scan(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray | None, str | None]:
    """The scan on the grid of the masks: grey [H, W, D] or [H, W], or a picture's colours [H, W, 3].

    None, and the reason, where it cannot be shown: no number depends on it.
    """
    missing = f"{path} is not shown beneath the outlines"
    try:
        scan = _read_picture(path) if pictures.is_picture(path) else read_stored(path)[0].voxels
    except Exception as error:  # nibabel has its own set of errors for a damaged file
        return None, f"{missing} ({str(error)[:200]})"
    while not pictures.is_picture(path) and scan.ndim > len(shape):
        scan = scan[..., 0]  # the first of several channels
    if scan.shape[: len(shape)] != shape:
        has, expected = (" x ".join(map(str, size)) for size in (scan.shape, shape))
        return None, f"{missing} (it has {has} voxels, the masks {expected})"
    return scan, None


def _read_picture(path: Path) -> np.ndarray:
    """A picture as displayed, [x, y] or [x, y, colour]: palette colours are not intensities, but can be shown."""
    with Picture.open(path) as picture:
        if picture.mode == "P":
            return pictures.to_grey(np.swapaxes(np.asarray(picture.convert("RGB")), 0, 1))
    return pictures.to_grey(pictures.read_picture(path))


def _render(summary: Mapping[str, Any], pairs: pd.DataFrame, folder: Path) -> str:
    drawings = [
        draw_dice_by_image(pairs, summary["raters"]),
        draw_dice_by_rater(pairs, summary),
        draw_size_bias(summary),
    ]
    return load_template("raters.html").render(
        s=summary,
        what=words.size_word(summary["units"]["size"]),
        metrics=METRICS,
        shown=SHOWN,
        write={metric: words.format_amount if metric == "hd95" else words.format_share3 for metric in METRICS},
        people={**summary["by_rater"], **({MODEL: summary["model"]} if summary["model"] else {})},
        consensus=CONSENSUS,
        findings=agreement_findings(summary),
        warnings=agreement_warnings(summary),
        limits=list(agreement_limits(summary)),
        drawings=[drawing for drawing in drawings if drawing],
        pictures=_pictures(summary, folder),
        all_pictures=sum(1 for own in summary["images"].values() if own["picture"]),
    )


def _pictures(summary: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The pictures of the images with the least agreement."""
    drawn = {name: own for name, own in summary["images"].items() if own["picture"]}
    least = sorted(drawn, key=lambda name: (drawn[name]["dice"], name))[:MOST_PICTURES]
    return [
        {"image": name, **drawn[name], "source": embed_png((folder / drawn[name]["picture"]).read_bytes())}
        for name in least
    ]


@contextmanager
def _written_whole(out: Path) -> Iterator[Path]:
    """A temporary folder, renamed to `out` on success and deleted on failure."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty: choose another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=unfinished_prefix(), dir=out.parent))
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): choose another folder.") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
