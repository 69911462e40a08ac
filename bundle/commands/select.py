"""The `select` command: the simplest of several cross-validations and their pairs, unless another is really better."""

from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Column

from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import Outcome, print_lines, score_table
from bundle.commands.workflows import hide_warnings, parse_settings, require_root
from scripts.errors import InputError
from scripts.files import write_text


@check_arguments
def select(
    *folders: Path,
    out: Path = Path("selected"),
    pairs: bool = True,
    dataset_dir: Optional[Path] = None,
    **settings: str,
) -> Outcome:
    """Select one of several cross-validations, or a pair whose masks are averaged: OUT/selected.yaml.

    Every one, and every pair, is scored on the same patients by networks that never saw them. The simplest is taken
    (fewest networks, then smallest weights), unless another has a higher mean Dice by a difference that is real. The
    masks of pairs are made here and kept in OUT/pairs; the same command continues after an interruption.

    Examples:
        python -m bundle select runs/cv_plain runs/cv_focal
        python -m bundle select runs/cv_a runs/cv_b runs/cv_c --out selected --device cpu
        python -m bundle segment selected /data/new_patients --out masks

    Args:
        folders: two or more cross-validations of the same data list and folds (`python -m bundle crossval`).
        out: the folder to write to; segment, evaluate and export take it in place of a run.
        pairs: whether pairs are candidates too.
        dataset_dir: the folder that the data list's paths start from, if it has moved.
        settings: any setting of configs/inference.yaml for the pairs, such as --device cpu; others are those that the
            cross-validations were segmented with.
    """
    from bundle.studies import candidates as studies
    from bundle.studies import selection
    from bundle.studies.members import SELECTION

    require_root()
    cohort = studies.read_cohort(folders, dataset_dir)
    own = {SELECTION, "pairs", "evaluation"}
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - own):
        raise InputError(f"{out} already holds files: give a new folder by --out, or that of an earlier selection.")
    hide_warnings()
    of_pairs = parse_settings({**studies.shared_settings(folders), **settings})
    found = studies.score_candidates(folders, cohort, out / "pairs", of_pairs, pairs)
    result = selection.select_candidate(found, cohort.folds)
    content = selection.describe_selection(result, found, len(cohort.folds))
    head = "# Written by `python -m bundle select`; segment, evaluate and export take this folder in place of a run.\n"
    write_text(out / SELECTION, head + yaml.safe_dump(content, sort_keys=False, width=120))

    console = Console()
    table = score_table(
        f"{len(cohort.folds)} patients, each by networks that never saw them: mean Dice (95 % interval)",
        *(Column("candidate"), "networks", "mean", "highest minus it", "p (Holm)"),
    )
    for row in content["candidates"]:
        behind = row.get("highest_minus_this")
        mark = " *" if row["name"] == result.choice.selected else ""
        cells = [row["name"] + mark, str(row["networks"]), _with_interval(row["mean_dice"], row["interval"])]
        cells += [_with_interval(behind["mean"], behind["interval"]), f"{behind['p_holm']:.3f}"] if behind else []
        table.add_row(*cells)
    console.print(table)
    print_lines(console, selection.explain(result, len(cohort.folds)))
    print(f"written: {out / SELECTION}")
    print(f"next: python -m bundle evaluate {out} --part test, or python -m bundle segment {out} SCANS --out masks")
    return Outcome(lambda: content)


def _with_interval(mean: float, ends: list[float] | None) -> str:
    return f"{mean:.3f} ({f'{ends[0]:.3f} to {ends[1]:.3f}' if ends else 'no interval'})"
