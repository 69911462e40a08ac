"""Which command did the user ask for? Imports that one alone, so that `--help` answers at once."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable

import fire

from scripts.errors import EXIT_CODE, INTERRUPTED, InputError, sentence_of

COMMANDS = {
    "smoke": "the whole story on synthetic patients in about a minute: data, training, judging, segmenting",
    "phantom": "write synthetic patients in a layout of the field (brats2021, brats2023, msd, nnunet)",
    "prepare": "recognise a folder of scans, check every file, split by patient, write the data list",
    "look": "draw normalisations, the cohort and augmented patches: to look at before any training",
    "score": "judge the masks of any system against a data list: cases.csv",
    "report": "turn an evaluation into one page that a clinician can read: report.html, summary.json",
    "compare": "say whether one system is better than another, patient by patient: compare.html, compare.json",
    "raters": "how far do several people's masks agree, and is a model like one of them? raters.html",
    "export": "turn a run into a Model Zoo package, compared with the network that was trained",
    "publish": "write a package in the Model Zoo's layout, or upload it to a Hugging Face repository",
    "serve": "serve a package by MONAI Label, for 3D Slicer, on this machine",
    "bench": "measure on this machine: training, inference, scoring, loading, beside MONAI's plain way",
}
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
        command = getattr(importlib.import_module(f"bundle.{name}"), name)
        if {"--help", "-h"} & set(arguments):
            arguments = [name, "--help"]  # Fire would run the command before it shows its help
        _refuse_unknown_options(command, arguments[1:])
        fire.Fire({name: command}, command=arguments, name="python -m bundle", serialize=lambda result: None)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _refuse_unknown_options(command: Callable, arguments: list[str]) -> None:
    """Fire would run the command first and complain about a mistyped option afterwards."""
    known = [*inspect.signature(command).parameters, "help"]
    for argument in arguments:
        if argument == "--":
            break
        if argument.startswith("--"):
            option = argument[2:].partition("=")[0].replace("-", "_")
            if option not in known and option.removeprefix("no") not in known:
                raise InputError(f"{command.__name__} has no option --{option}{_nearest(option, known)}; see --help.")


def _nearest(word: str, known: object) -> str:
    near = difflib.get_close_matches(word, list(known), n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


if __name__ == "__main__":
    main()
