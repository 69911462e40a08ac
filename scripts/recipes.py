"""Conflicts between recipes, the YAML files that change one idea of a workflow."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.files import read_mapping

NOTHING = "$None"  # how an override sets null: MONAI's `run` ignores one that is None


def read_overrides(path: str | os.PathLike) -> dict[str, Any]:
    """The settings of a task or recipe by their place in the workflow (`train::crop`, `+loss`).

    Raises:
        InputError: the file cannot be read, or does not contain settings.
    """
    return {str(key).replace("#", "::"): value for key, value in read_mapping(path).items()}


def refuse_conflicts(recipes: Iterable[str | os.PathLike]) -> None:
    """Refuse two recipes that set the same section: the later one would silently override the earlier one.

    Both may merge into the same section (`+section`).

    Raises:
        InputError: names two recipes and the section.
    """
    known: list[tuple[str, str]] = []
    for recipe in dict.fromkeys(str(recipe) for recipe in recipes):
        own = [*read_overrides(recipe)]
        for place, (other_place, other) in ((place, pair) for place in own for pair in known):
            short, long = sorted((place.lstrip("+"), other_place.lstrip("+")), key=len)
            both_merge = place.startswith("+") and other_place.startswith("+")
            if not both_merge and f"{long}::".startswith(f"{short}::"):
                raise InputError(
                    f"recipes {Path(other).stem} and {Path(recipe).stem} both set {short}: use one of them, or write"
                    " one recipe that combines both."
                )
        known += [(place, recipe) for place in own]
