"""Arguments become what a command's annotations ask for, or one sentence that names them."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import PositiveInt

from bundle.commands.arguments import CommaList, Optional, check_arguments
from scripts.errors import InputError


@check_arguments
def paint(
    canvas: Path,
    *,
    colours: CommaList[str] = ("red",),
    layers: Optional[PositiveInt] = None,
    style: Literal["oil", "chalk"] = "oil",
    share: float = 0.5,
    wet: bool = False,
) -> tuple:
    return canvas, colours, layers, style, share, wet


def test_text_becomes_what_the_annotations_say():
    found = paint("2024_01_15", colours="red, dark blue,", layers="3", style="chalk", share="1e-2", wet="True")
    assert found == (Path("2024_01_15"), ("red", "dark blue"), 3, "chalk", 0.01, True)


@pytest.mark.parametrize("nothing", ["None", "null", None])
def test_an_optional_value_can_be_nothing(nothing):
    assert paint("x", layers=nothing)[2] is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": "many"}, "--layers is 'many': expected a whole number."),
        ({"layers": "0"}, "--layers is '0': expected more than 0."),
        ({"share": "half"}, "--share is 'half': expected a number."),
        ({"wet": "maybe"}, "--wet is 'maybe': expected True or False."),
        ({"style": "oils"}, "--style is 'oils': expected 'oil' or 'chalk' (did you mean oil?)."),
        ({"colour": "red"}, "paint has no option --colour (did you mean colours?); see --help."),
        ({"canvas": "y"}, "canvas is given twice, as a word and as --canvas: give it once."),
    ],
)
def test_wrong_option_is_named_with_what_is_expected(options, sentence):
    with pytest.raises(InputError) as caught:
        paint("x", **options)
    assert str(caught.value) == sentence


def test_missing_and_surplus_words_are_named():
    with pytest.raises(InputError, match=r"^paint needs CANVAS: see `python -m bundle paint --help`"):
        paint()
    with pytest.raises(InputError, match=r"^'y' is one word too many for paint"):
        paint("x", "y")
