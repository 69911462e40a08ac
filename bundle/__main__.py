"""The command line, `python -m bundle COMMAND`: imports one command alone, so that `--help` answers at once."""

import difflib
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Callable

import fire

from scripts.errors import EXIT_CODE, INTERRUPTED, InputError, input_error_message

COMMANDS = {
    "smoke": "the whole story on synthetic patients in about a minute: data, training, scoring, segmenting",
    "phantom": "write synthetic patients in a layout of the field (brats2021, brats2023, msd, nnunet)",
    "prepare": "recognise a folder of scans, check every file, split by patient, write the data list",
    "look": "draw normalisations, the cohort and augmented patches: to look at before any training",
    "score": "score the masks of any system against a data list: cases.csv",
    "report": "turn an evaluation into one page that a clinician can read: report.html, summary.json",
    "compare": "say whether one system is better than another, patient by patient: compare.html, compare.json",
    "raters": "how far do several people's masks agree, and is a model like one of them? raters.html",
    "export": "turn a run into a Model Zoo package, compared with the network that was trained",
    "publish": "write a package in the Model Zoo's layout, or upload it to a Hugging Face repository",
    "serve": "serve a package by MONAI Label, for 3D Slicer, on this machine",
    "bench": "measure on this machine: training, inference, scoring, loading, beside MONAI's plain way",
}
OPTION = re.compile(r"--|-[a-zA-Z]")  # what Fire takes for one; -1 is a value
EXAMPLES = """\
  python -m bundle smoke --out smoke
  python -m bundle prepare /data/BraTS2021 --out datalist.json
  python -m bundle COMMAND --help"""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; a wrong input ends in one sentence on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print("usage: python -m bundle COMMAND [ARGUMENTS]\n")
        print("\n".join(f"  {name:<9}{purpose}" for name, purpose in COMMANDS.items()))
        print(f"\nexamples:\n{EXAMPLES}")
        return
    name = arguments[0]
    try:
        if name not in COMMANDS:
            raise InputError(
                f"there is no command '{name}'{_nearest(name, COMMANDS)}; there are: {', '.join(COMMANDS)}."
            )
        command = getattr(importlib.import_module(f"bundle.commands.{name}"), name)
        if {"--help", "-h"} & set(arguments):
            arguments = [name, "--help"]  # Fire would run the command before it shows its help
        _refuse_unknown_options(command, arguments[1:])
        fire.Fire({name: command}, command=arguments, name="python -m bundle", serialize=lambda result: None)
    except Exception as error:
        sentence = input_error_message(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _refuse_unknown_options(command: Callable, arguments: list[str]) -> None:
    """Fire would run the command first and complain about a mistyped option afterwards.

    It would also take an option without its value for True, and a word too many for the next option.
    """
    parameters = inspect.signature(command).parameters
    known = [*parameters, "help"]
    given = list(itertools.takewhile(lambda argument: argument != "--", arguments))
    words: list[str] = []
    named: set[str] = set()
    is_value = False
    for argument, following in zip(given, [*given[1:], "--"], strict=False):
        if is_value or not OPTION.match(argument):
            words += [] if is_value else [argument]
            is_value = False
            continue
        option, equals, _ = argument.lstrip("-").replace("-", "_").partition("=")
        is_value = not equals and not OPTION.match(following)
        named.add(option)
        if argument.startswith("--") and option not in known and option.removeprefix("no") not in known:
            raise InputError(f"{command.__name__} has no option --{option}{_nearest(option, known)}; see --help.")
        if option in parameters and not (equals or is_value or isinstance(parameters[option].default, bool)):
            raise InputError(f"--{option} has no value: put one behind it, in quotes if it has spaces; see --help.")
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()):
        return
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    if surplus := words[len(set(required) - named) if required else 1 :]:
        raise InputError(
            f"'{surplus[0]}' is one word too many for {command.__name__}: say by an option what it is, and put text"
            " with spaces in quotes; see --help."
        )


def _nearest(word: str, known: object) -> str:
    near = difflib.get_close_matches(word, list(known), n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


if __name__ == "__main__":
    main()
