"""The `raters` command: agreement of several people's masks of the same images, and of a model's with theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PositiveInt
from rich.console import Console
from rich.table import Column
from rich.text import Text

from bundle.analysis.strict_json import to_strict_json
from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import Outcome, print_lines, score_table
from scripts.errors import EXIT_SOME_FAILED


@check_arguments
def raters(
    *folders: Path,
    model: Optional[Path] = None,
    foreground: Optional[int] = None,
    images: Optional[Path] = None,
    out: Path = Path("raters"),
    title: Optional[str] = None,
    workers: Optional[PositiveInt] = None,
) -> Outcome:
    """Compare several people's masks of the same images, and a model's with theirs: OUT/raters.html.

    Next to the page: pairs.csv (one row per pair of masks), raters.json, masks/majority and masks/staple (the
    consensus), and disagreement (one picture per image). Masks of one image have the same file name, apart from upper
    case and from words such as seg_ or _mask; PNG, TIFF or NIfTI, 2D or 3D. docs/raters.md explains the page.

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
        title: the title of the page.
        workers: processes; as many as there are cores by default.
    """
    from bundle.analysis.rater_masks import find_images, name_raters
    from bundle.reporting.agreement_page import write_agreement

    named = name_raters(folders)
    summary = write_agreement(named, find_images(named, model, images), out, foreground, workers, title, model)
    print_summary(summary)
    print(f"written: {out / 'raters.html'}, and next to it pairs.csv, raters.json, masks and disagreement")
    return Outcome(lambda: to_strict_json(summary), EXIT_SOME_FAILED if summary["failed"] else 0)


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the top of the page: one row per rater and for the model, the findings, the warnings."""
    from bundle.reporting.agreement_sentences import agreement_findings, agreement_warnings
    from bundle.reporting.words import (
        format_amount,
        format_share,
        format_share3,
        format_signed,
        metric_name,
        plural,
        size_word,
        unit_sign,
    )

    console = console or Console()
    length = summary["units"]["length"]
    images, whole = len(summary["images"]), len(summary["images"]) - len(summary["incomplete"])
    title = f"{summary['title']}: {plural(images, 'image')}, {whole} of them drawn by all"
    headings = ["n", "Dice:\nmean", "median\n(quartiles)", f"HD95\n{unit_sign(length)}", metric_name("nsd_2mm", length)]
    headings.append(f"{size_word(summary['units']['size'])}\nbias, %")
    grid = score_table(title, Column("with the\nothers", overflow="fold"), *headings)
    people = {**summary["by_rater"], **({"model": summary["model"]} if summary["model"] else {})}
    for who, own in people.items():
        found, bias = own["with_raters"], (own["size_bias"] or {}).get("relative")
        if found:
            dice = found["dice"]
            grid.add_row(
                Text(who),
                str(own["images"]),
                format_share3(dice["mean"]),
                f"{format_share(dice['median'])} ({format_share(dice['q1'])}-{format_share(dice['q3'])})",
                format_amount(found["hd95"]["median"]),
                format_share(found["nsd_2mm"]["median"]),
                format_signed(100 * bias["mean"]) if bias else "",
            )
    console.print(grid)
    lines = agreement_findings(summary)
    lines += [f"not drawn by {', '.join(lacking)}: {image}" for image, lacking in summary["incomplete"].items()]
    lines += [f"no mask of the model: {image}" for image in summary["without_model"]]
    lines += [f"note: {note}" for note in summary["notes"]]
    print_lines(console, lines, agreement_warnings(summary))
