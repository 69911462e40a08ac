"""Arguments of commands: text from the command line, checked against the annotations of the command's function."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, ValidationError, validate_call

from scripts.errors import InputError

Value = TypeVar("Value")
Command = TypeVar("Command", bound=Callable[..., Any])


def split_list(text: Any) -> Any:
    """`"a,b"` or `"[a,b]"` as ["a", "b"], without empty parts; anything else as it is."""
    return [p for p in map(str.strip, text.strip("[]").split(",")) if p] if isinstance(text, str) else text


CommaList = Annotated[tuple[Value, ...], BeforeValidator(split_list)]
# the value, or None where nothing is given, or None itself, as scripts write it
Optional = Annotated[Value | None, BeforeValidator(lambda text: None if text in ("null", "None") else text)]

CONSTANTS = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}
EXPECTED = {  # by pydantic's name of the error, with what it knows of the bounds
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "True or False",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
}


def check_arguments(command: Command) -> Command:
    """A command whose arguments are converted to its annotations before it runs.

    Raises:
        InputError: an argument is missing, unknown or of another form; one sentence names it.
    """
    checked = validate_call(command, config=ConfigDict(arbitrary_types_allowed=True))

    @functools.wraps(command)
    def call(*words: Any, **options: Any) -> Any:
        try:
            return checked(*words, **options)
        except ValidationError as error:
            raise InputError(describe_error(command, error.errors()[0])) from None

    return call


def describe_error(command: Callable, error: Any) -> str:
    """The sentence for an error of pydantic's: which argument, what was given, what was expected."""
    name, given, parameters = command.__name__, error["input"], inspect.signature(command).parameters
    place, kind = error["loc"][0], error["type"]
    option = list(parameters)[place] if isinstance(place, int) and place < len(parameters) else place
    if kind.startswith("missing"):
        shown = option.upper() if parameters[option].default is inspect.Parameter.empty else f"--{option}"
        keyword = parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        return f"{name} needs {f'--{option}'.rstrip('_') if keyword else shown}: see `python -m bundle {name} --help`."
    if kind == "unexpected_keyword_argument":
        return f"{name} has no option --{option}{nearest(option, parameters)}; see --help."
    if kind == "unexpected_positional_argument":
        return (
            f"'{given}' is one word too many for {name}: name the option that it belongs to, and put text with spaces"
            " in quotes; see --help."
        )
    if kind == "multiple_argument_values":
        return f"{option} is given twice, as a word and as --{option}: give it once."
    expected = EXPECTED.get(kind, error["msg"]).format(**error.get("ctx", {}))
    return (
        f"--{str(option).rstrip('_')} is {given!r}: expected {expected}{nearest(given, expected.split(chr(39))[1::2])}."
    )


def nearest(word: Any, known: Iterable[str]) -> str:
    """` (did you mean x?)`, or nothing where no known word is near."""
    near = difflib.get_close_matches(str(word), list(known), n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
