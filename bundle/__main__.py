"""The command line, `python -m bundle COMMAND`: only the requested command is imported, so that it starts at once."""

import contextlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import fire
from fire.decorators import SetParseFn

from bundle.commands.arguments import CONSTANTS, nearest
from bundle.commands.shared import Outcome
from bundle.commands.usage import show_help
from scripts import stopping
from scripts.distributed import is_first_process
from scripts.errors import InputError, input_error_message, report_and_exit

COMMANDS = {
    "smoke": "run the full pipeline on synthetic patients in minutes: data, training, evaluation, a new scan",
    "phantom": "write synthetic patients in a layout of the field (brats2021, brats2023, brats_ped, msd, nnunet)",
    "prepare": "recognise a folder of scans, check every file, split by patient, write the data list",
    "look": "draw normalisations, the cohort and augmented patches, before any training",
    "plan": "decide patch, network, batch and sampling for a cohort and a memory, each with its reason: plan.yaml",
    "check": "build every component of a training, without training",
    "network": "draw the network of a task and its recipes as SVG, and what a trained one has learned",
    "train": "train a task, changed by recipes and settings: a run folder with the best weights",
    "crossval": "train every fold, and score each patient by the network that never saw them",
    "calibrate": "predict the Dice of new masks, bounded, from the masks of patients that the runs never saw",
    "ablate": "train a baseline and its variants, and say what each changes, paired by patient",
    "evaluate": "segment and score the test or validation patients of a run: cases.csv",
    "select": "select the simplest of several cross-validations and their pairs, unless another is really better",
    "segment": "segment new scans with a run or a package: a mask, measures and a page for each",
    "prompt": "segment what is clicked or boxed on a scan, by nnInteractive, SAM 2 or MedSAM",
    "follow": "compare the time points of one patient: lesions, volumes and diameters over time, on one page",
    "score": "score the masks of any system against a data list: cases.csv",
    "report": "turn an evaluation into one page that a clinician can read: report.html, summary.json",
    "compare": "test whether one system is better than another, paired by patient: compare.html, compare.json",
    "raters": "measure the agreement of several people's masks, and of a model's with theirs: raters.html",
    "export": "turn a run into a Model Zoo package, compared with the network that was trained",
    "publish": "write a package in the Model Zoo's layout, or upload it to a Hugging Face repository",
    "serve": "serve a package by MONAI Label, for 3D Slicer, on this machine",
    "bench": "measure on this machine: training, inference, scoring, loading, next to MONAI's usual way",
}
RENAMED = {("publish", "to"): "out", ("serve", "work"): "out"}  # options; the former names go with the next version
FORMER = dict(RENAMED)  # and the names that a workflow has for it; all are accepted
FORMER |= {(command, "output_dir"): "out" for command in ("evaluate", "segment")}
FORMER |= {(command, "run_dir"): "out" for command in ("train", "check")}
OPTION = re.compile(r"--\w|-[a-zA-Z]")  # -1 is a value
EXAMPLES = """\
  python -m bundle smoke --out smoke
  python -m bundle prepare /data/BraTS2021 --out datalist.json
  python -m bundle train brats --datalist datalist.json --dataset_dir /data/BraTS2021 --out runs/first
  python -m bundle COMMAND --help

exit codes: 0 all done; 1 some cases failed; 2 wrong input; 75 saved, to be requeued; 130 Ctrl-C; 143 SIGTERM"""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; a wrong input ends in one sentence on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print("usage: python -m bundle COMMAND [ARGUMENTS]\n")
        print("\n".join(f"  {name:<10}{purpose}" for name, purpose in COMMANDS.items()))
        print(f"\nexamples:\n{EXAMPLES}")
        return
    stopping.catch_signals()
    try:
        run_command(*arguments)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, Exception) and input_error_message(error) is None:
            raise
        report_and_exit(type(error), error, error.__traceback__)


def run_command(name: str, *arguments: str) -> None:
    """Run the command `name`; with `--json` its numbers are the only text on stdout.

    Raises:
        InputError: there is no such command, or an argument is wrong.
        SystemExit: not everything was done.
    """
    if name not in COMMANDS:
        raise InputError(f"there is no command '{name}'{nearest(name, COMMANDS)}; there are: {', '.join(COMMANDS)}.")
    module = importlib.import_module(f"bundle.commands.{name}")
    command = getattr(module, name)
    if {"--help", "-h"} & set(arguments):
        print(show_help(command, module))
        return
    words, options = split_arguments(command, arguments)
    as_json = options.pop("json", False)
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        outcome: Outcome | None = command(*words, **options)
    if outcome is None:
        return
    if as_json and is_first_process():
        print(json.dumps(outcome.numbers(), indent=2, ensure_ascii=False))
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


def split_arguments(command: Callable, arguments: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The words and the options of a command line, all as text: Fire would turn the name 2024_01_15 into a number.

    Raises:
        InputError: an option has no value.
    """
    parameters = inspect.signature(command).parameters
    switches = {name for name, parameter in parameters.items() if isinstance(parameter.default, bool)} | {"json"}
    given = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        if not OPTION.match(argument):
            given.append(argument)
            continue
        option, equals, value = argument.lstrip("-").partition("=")
        option = option.replace("-", "_")
        initials = [name for name in parameters if not argument.startswith("--") and name.startswith(option)]
        if new := RENAMED.get((command.__name__, option)):
            print(f"note: --{option} of {command.__name__} is now --{new}.", file=sys.stderr)
        option = FORMER.get((command.__name__, option), initials[0] if len(initials) == 1 else option)
        option = f"{option}_" if f"{option}_" in parameters else option  # a word of Python, such as `with`
        alone = following == "--" or OPTION.match(following) is not None
        if option in switches and not equals and following not in CONSTANTS:
            equals, value = "=", "True"
        elif option.startswith("no") and option[2:] in switches and not equals:
            option, equals, value = option[2:], "=", "False"
        elif alone and not equals:
            raise InputError(
                f"--{option} has no value: give one after it, in quotes if it has spaces, and after = if"
                " it begins with a dash; see --help."
            )
        given.append(f"--{option}{equals}{value}")
    found: list[Any] = []
    collect = SetParseFn(str)(lambda *words, **options: found.extend((words, options)))
    fire.Fire(collect, command=given, name="python -m bundle", serialize=lambda result: None)
    words, options = found
    return words, options


if __name__ == "__main__":
    main()
