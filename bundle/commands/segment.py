"""The `segment` command: segment new scans with a run, several runs or a package."""

import os
import sys
from pathlib import Path

from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.shared import ask_user
from bundle.commands.workflows import hide_warnings, long_form, parse_settings, require_root, run_files, run_workflow
from bundle.packaging.package_check import check_trusted_files
from scripts.errors import InputError

WORKFLOW = "configs/inference.yaml"


@check_arguments
def segment(
    source: Path,
    input: Path,
    *,
    out: Path,
    ensemble: CommaList[Path] = (),
    dataset_dir: Optional[Path] = None,
    resume: bool = False,
    requeue: bool = False,
    trust: bool = False,
    **settings: str,
) -> None:
    """Segment new scans with a run or a package: OUT/<case>.nii.gz, or the picture format of the input.

    Several runs give one mask: the folds of a cross-validation, a selection, or those added by --ensemble. Logits are
    averaged where the runs are of one configuration, else the probabilities of each configuration.

    The command prints its long form, `python -m monai.bundle run inferring ...`, and runs it. A package is a program:
    it runs by its own code, in its own folder. Started by torchrun, the processes share the cases.

    Examples:
        python -m bundle segment runs/first /data/new_patients --out masks
        python -m bundle segment dist/brats2021_segmentation-0.1.0 /data/new_patients --out masks --tta True
        python -m bundle segment runs/first /data/new_patients --out masks --resume
        python -m bundle segment runs/cv /data/new_patients --out masks
        python -m bundle segment runs/first /data/new_patients --ensemble runs/second,runs/cv --out masks

    Args:
        source: the folder of a run, of a cross-validation, or of a package that `python -m bundle export` wrote; or the
            YAML file of a selection.
        input: a folder of patients, the folder of one, one file with all channels, or a data list.
        out: the folder to write to.
        ensemble: further runs or cross-validations to average with the first.
        dataset_dir: the folder that a data list's paths start from; by default the one that holds the list.
        resume: skip scans that are segmented already.
        requeue: after SIGTERM, exit with code 75 in place of 143, which asks a scheduler to start the job again.
        trust: the package is trusted: its code and configs may run with your rights. Without it you are asked at the
            first use; it is remembered until a file of the package changes.
        settings: any setting of configs/inference.yaml, such as --overlap 0.25 or --device cpu.
    """
    from bundle.studies import averaging, members
    from scripts.inference.scans import exit_if_cases_refused

    if input.suffix == ".json" and dataset_dir is None:
        dataset_dir = input.parent
    package = source.suffix == ".zip" or (source / WORKFLOW).is_file()
    if package:
        if ensemble:
            raise InputError(f"{source} is a package, which has one network: --ensemble takes runs; leave it out.")
        check_trusted_files(source, trust, ask_user)
    else:
        require_root()
        configurations = members.find_configurations([source, *ensemble], ", and not a package")
        files = run_files(configurations[0][0], WORKFLOW)
    if not input.exists():
        raise InputError(
            f"input {input} does not exist: give a folder of patients, a file with all channels or a list."
        )
    given = {"input": input, "output_dir": out, "dataset_dir": dataset_dir}
    paths = {name: path for name, path in given.items() if path is not None}
    if package:
        paths = {name: path.resolve() for name, path in paths.items()}
    switches = {name: True for name, given in {"resume": resume, "requeue": requeue}.items() if given}
    values = {name: path.as_posix() for name, path in paths.items()} | switches | parse_settings(settings)
    if not package and len(configurations) == 1:
        run_workflow("inferring", files, values | members.name_weights(configurations[0]))
        return
    if not package:
        hide_warnings()
        refused, cases = averaging.segment_with_several(configurations, values, out, resume=resume or requeue)
        print("masks:", out)
        exit_if_cases_refused(refused, cases, resume or requeue)
        return
    print(f"$ cd {source} && {long_form('inferring', [WORKFLOW], values)}", flush=True)
    os.chdir(source)
    arguments = [f"--{name}={value!r}" for name, value in {"config_file": WORKFLOW, **values}.items()]
    command = [sys.executable, "-m", "monai.bundle", "run", "inferring", *arguments]
    os.execve(sys.executable, command, {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})  # leaves the package as it is
