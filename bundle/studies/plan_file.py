"""A plan as a YAML file that overrides a training, each line with its reason above it."""

import math
import textwrap
from collections.abc import Iterable
from pathlib import Path

import yaml

from bundle.benchmarks.steps import MeasuredStep
from bundle.studies.decisions import Line
from bundle.studies.plan import Plan
from scripts.files import write_text

WIDTH = 118  # characters of a comment


def decide_length(hours: float | None, steps_per_epoch: int, step: MeasuredStep | None) -> list[Line]:
    """The length of a training of so many hours; epochs only from a measured step."""
    if hours is None:
        return []
    minutes = float(f"{60 * hours:.6g}")
    if step is None:
        reason = (
            f"{hours:g} h, to which the schedule is fitted; no step was measured (--measure), so max_epochs is left as"
            " it is, and the training ends earlier where it takes less"
        )
        return [Line("max_minutes", minutes, reason)]
    epochs = max(1, math.ceil(3600 * hours / (steps_per_epoch * step.seconds)))
    reason = (
        f"as many as {hours:g} h hold without validation, at {step.seconds:.3g} s measured for a step; max_minutes ends"
        " the training"
    )
    return [
        Line("max_minutes", minutes, f"{hours:g} h, to which the schedule is fitted"),
        Line("max_epochs", epochs, reason),
    ]


def list_configurations(plan: Plan) -> list[str]:
    """One sentence per configuration: this one, another one, or why there is none."""
    return [
        f"{name}: {'not here, ' + why if why else 'this plan' if name == plan.configuration else 'exists'}"
        for name, why in plan.exists.items()
    ]


def write_plan(path: Path, head: Iterable[str], plan: Plan, length: Iterable[Line]) -> None:
    """Write the file, whole or not at all.

    Args:
        path: of the file.
        head: sentences above all lines.
        plan: the lines.
        length: further lines.
    """
    text = "".join(_comment(sentence) for sentence in [*head, *list_configurations(plan)])
    for line in [*plan.lines, *length]:
        value = (
            yaml.safe_dump(line.value, default_flow_style=True, width=1000, sort_keys=False)
            .removesuffix("...\n")
            .strip()
        )
        text += f"\n{_comment(line.reason)}{line.setting}: {value}\n"
    write_text(path, text)


def _comment(sentence: str) -> str:
    lines = textwrap.wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)
