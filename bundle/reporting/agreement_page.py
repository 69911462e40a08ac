"""The page of the agreement of raters: `raters.html`, with the tables, masks and pictures that it is made of."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.analysis.agreement_summary import summarise
from bundle.analysis.rater_masks import CONSENSUS, MODEL, Image
from bundle.analysis.rater_pairs import COLUMNS, METRICS, require_pairs
from bundle.reporting import words
from bundle.reporting.agreement_figures import by_image, by_person, sizes
from bundle.reporting.agreement_images import judge_images
from bundle.reporting.agreement_sentences import findings, limits, warnings
from bundle.reporting.page import embed_png, template
from scripts.errors import InputError
from scripts.files import write_json, write_text, written_whole

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

    `foreground` is the value of the object in the masks, None for all but 0. Returns the content of raters.json.

    Raises:
        InputError: `out` is not empty or cannot be written, a mask is none, or there is nothing to compare.
    """
    with _written_whole(out) as folder:
        judged = judge_images(images, foreground, folder, workers)
        require_pairs(judged, foreground)
        pairs = pd.DataFrame([row for one in judged for row in one.rows], columns=COLUMNS)
        about = {
            "title": str(title or f"How far {len(raters)} raters agree"),
            "folders": {rater: str(path.resolve()) for rater, path in raters.items()},
            "model_folder": None if model is None else str(Path(str(model)).resolve()),
            "foreground": foreground,
        }
        summary = summarise(judged, pairs, list(raters), model is not None, about)
        with written_whole(folder / "pairs.csv") as temporary:
            pairs.to_csv(temporary, index=False)
        write_json(folder / "raters.json", summary)
        write_text(folder / "raters.html", _render(summary, pairs, folder))
    return summary


def _render(summary: Mapping[str, Any], pairs: pd.DataFrame, folder: Path) -> str:
    drawings = [by_image(pairs, summary["raters"]), by_person(pairs, summary), sizes(summary)]
    return template("raters.html").render(
        s=summary,
        what=words.size(summary["units"]["size"]),
        metrics=METRICS,
        shown=SHOWN,
        write={metric: words.amount if metric == "hd95" else words.share3 for metric in METRICS},
        people={**summary["by_rater"], **({MODEL: summary["model"]} if summary["model"] else {})},
        consensus=CONSENSUS,
        findings=findings(summary),
        warnings=warnings(summary),
        limits=list(limits(summary)),
        drawings=[drawing for drawing in drawings if drawing],
        pictures=_pictures(summary, folder),
        all_pictures=sum(1 for own in summary["images"].values() if own["picture"]),
    )


def _pictures(summary: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The pictures of the images that raters agree least on."""
    drawn = {name: own for name, own in summary["images"].items() if own["picture"]}
    least = sorted(drawn, key=lambda name: (drawn[name]["dice"], name))[:MOST_PICTURES]
    return [
        {"image": name, **drawn[name], "source": embed_png((folder / drawn[name]["picture"]).read_bytes())}
        for name in least
    ]


@contextmanager
def _written_whole(out: Path) -> Iterator[Path]:
    """A folder that takes the name `out` if all goes well, and leaves nothing behind if not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty: choose another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): choose another folder.") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
