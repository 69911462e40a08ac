"""How far do people agree, and is a model like one of them? The `raters` command: several masks of the same images."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm.contrib.concurrent import process_map

from scripts.errors import InputError
from scripts.files import write_json, write_text, written_whole

if TYPE_CHECKING:
    from bundle.analysis.rater_masks import Image
    from bundle.analysis.rater_pairs import Judged

SOME_FAILED = 1  # exit code: the result is there, but not every file could be judged


def raters(
    *folders: str,
    model: str | None = None,
    foreground: int | None = None,
    images: str | None = None,
    out: str = "raters",
    title: str | None = None,
    workers: int | None = None,
) -> None:
    """Compare several people's masks of the same images, and a model's with theirs: OUT/raters.html.

    Beside the page pairs.csv (a row a pair of masks), raters.json, masks/majority and masks/staple (the consensus), and
    disagreement (a picture an image). Masks of one image have the same file name, upper and lower case alike, and words
    such as seg_ or _mask left out; PNG, TIFF or NIfTI, 2D or 3D. docs/raters.md tells what stands where and why.

    Examples:
        python -m bundle raters anna ben carla
        python -m bundle raters anna ben carla --model predictions --images scans --out agreement
        python -m bundle raters anna ben --foreground 0

    Args:
        folders: one folder of masks for each rater, two or more.
        model: the folder of a model's masks of the same images: is it like one of the raters?
        foreground: the value of the object, where it is drawn as 0 or is one of several; else all but 0 is the object.
        images: the folder of the images themselves, to draw beneath the outlines.
        out: the folder to write, which must be new or empty.
        title: what stands above the page.
        workers: processes; as many as there are cores by default.
    """
    if foreground is not None and (isinstance(foreground, bool) or not isinstance(foreground, int)):
        raise InputError(f"foreground is '{foreground}': expected the whole number that the object is drawn as.")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InputError(f"--workers is {workers}: give a whole number of processes, 1 or more.")
    from bundle.analysis.rater_masks import find, name_raters

    named = name_raters(folders)
    found = find(named, model, images)
    with _written_whole(Path(str(out))) as folder:
        judged = _judge_all(found, foreground, folder, workers)
        _require_something(judged, foreground)
        from bundle.analysis.agreement_summary import summarise, table
        from bundle.reporting.agreement_page import render

        pairs = table(judged)
        about = {
            "title": str(title or f"How far {len(named)} raters agree"),
            "folders": {rater: str(path.resolve()) for rater, path in named.items()},
            "model_folder": None if model is None else str(Path(str(model)).resolve()),
            "foreground": foreground,
        }
        summary = summarise(judged, pairs, list(named), model is not None, about)
        with written_whole(folder / "pairs.csv") as temporary:
            pairs.to_csv(temporary, index=False)
        write_json(folder / "raters.json", summary)
        write_text(folder / "raters.html", render(summary, pairs, folder))
    print_summary(summary)
    print(f"written: {Path(str(out)) / 'raters.html'}, pairs.csv, raters.json, masks and disagreement beside it")
    if summary["failed"]:
        sys.exit(SOME_FAILED)


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what stands first on the page: a row for each rater and the model, what was found, what is odd."""
    from bundle.reporting.agreement_sentences import findings, warnings
    from bundle.reporting.words import amount, count, name, share, share3, sign, signed, size

    console = console or Console()
    length = summary["units"]["length"]
    images, whole = len(summary["images"]), len(summary["images"]) - len(summary["incomplete"])
    heading = f"{summary['title']}: {count(images, 'image')}, {whole} of them drawn by all"
    grid = Table(title=Text(heading), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    grid.add_column("with the\nothers", overflow="fold")
    headings = ("n", "Dice:\nmean", "median\n(quartiles)", f"HD95\n{sign(length)}", name("nsd_2mm", length))
    for text in (*headings, f"{size(summary['units']['size'])}\nbias, %"):
        grid.add_column(text, justify="right")
    people = {**summary["by_rater"], **({"model": summary["model"]} if summary["model"] else {})}
    for who, own in people.items():
        found, bias = own["with_raters"], (own["size_bias"] or {}).get("relative")
        if found:
            dice = found["dice"]
            grid.add_row(
                Text(who),
                str(own["images"]),
                share3(dice["mean"]),
                f"{share(dice['median'])} ({share(dice['q1'])}-{share(dice['q3'])})",
                amount(found["hd95"]["median"]),
                share(found["nsd_2mm"]["median"]),
                signed(100 * bias["mean"]) if bias else "",
            )
    console.print(grid)
    lines = findings(summary)
    lines += [f"not drawn by {', '.join(lacking)}: {image}" for image, lacking in summary["incomplete"].items()]
    lines += [f"no mask of the model: {image}" for image in summary["without_model"]]
    lines += [f"note: {note}" for note in summary["notes"]]
    for line in [*lines, *(f"WARNING: {text}" for text in warnings(summary))]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _judge_all(found: Sequence[Image], foreground: int | None, folder: Path, workers: int | None) -> list[Judged]:
    from bundle.analysis.rater_pairs import judge

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    one: Callable[[Image], Judged] = partial(judge, foreground=foreground, folder=folder)
    workers = min(workers or cores, len(found))
    bar = {"desc": "comparing", "unit": "image"}
    if workers <= 1:
        from tqdm import tqdm

        return [one(image) for image in tqdm(found, **bar)]
    try:
        return process_map(one, found, max_workers=workers, chunksize=1, **bar)
    except BrokenProcessPool as error:
        raise InputError(
            f"a process was killed, most likely for memory: take fewer than {workers} --workers."
        ) from error


def _require_something(judged: Sequence[Judged], foreground: int | None) -> None:
    """That there is an object, and a pair of masks to compare."""
    failed = [reason for one in judged for reason in one.failed.values()]
    if not any(one.undecided is not None for one in judged):
        raise InputError(f"no image has two masks that can be read; {failed[0]}")
    if len({one.units for one in judged if one.rows}) > 1:
        raise InputError("some masks are flat and others volumes: compare those in mm and cm² apart from those in ml.")
    if not any(size for one in judged for size in one.sizes.values()):
        value = "anything but 0" if foreground is None else f"the value {foreground}, which --foreground asks for"
        raise InputError(f"no mask holds {value}: look at the values in the files, and say which is the object.")


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
