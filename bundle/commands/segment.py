"""The `segment` command: segment new scans with a run, several runs or a package, with an answer for each."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bundle.commands.answering import AnswerRequest, answer_scans
from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.raw_scans import read_raw_options
from bundle.commands.shared import Outcome, ask_user
from bundle.commands.workflows import hide_warnings, long_form, parse_settings, require_root, run_files, run_workflow
from bundle.packaging.package_check import check_trusted_files
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.inference.worker_process import WORKFLOW, can_answer, is_package
from scripts.network.weights import settings_file

MASKS_ALONE = {
    "pictures": "pictures get masks, no answers.",
    "several": "several configurations give masks, no answers.",
    "former": "{source} was exported by an earlier version: it gives masks without answers; export it again.",
}


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
    identify: bool = False,
    channels: CommaList[str] = (),
    dicom_seg: bool = False,
    raw: bool = False,
    brain: Optional[str] = None,
    brain_mask: Optional[str] = None,
    **settings: str,
) -> Outcome | None:
    """Segment new scans with a run or a package: OUT/<case>.nii.gz, and an answer in OUT/<case>/.

    The answer of a scan is answer.html, a page with verdict, pictures, viewer, measures and checks, and answer.json,
    the same for programs (docs/answer.md). A scan that a check refuses gets no mask; its page says why. Pictures get
    masks alone. Of DICOM (docs/dicom.md) the series of each channel are recognised, with the evidence, and cases are
    numbered. A package is a program: it runs by its own code. Started by torchrun, the processes share the cases.

    Several runs give one mask: the folds of a cross-validation, a selection, or those added by --ensemble. Logits are
    averaged where the runs are of one configuration, else the probabilities of each configuration, without answers.

    Examples:
        python -m bundle segment runs/first /data/new_patients --out answers
        python -m bundle segment dist/brats2021_segmentation-0.1.0 /data/new_patients --out answers --tta True
        python -m bundle segment runs/first /data/new_patients --out answers --resume
        python -m bundle segment runs/first /data/from_the_scanner --out answers --raw
        python -m bundle segment runs/cv /data/new_patients --out answers
        python -m bundle segment runs/first /data/new_patients --ensemble runs/second,runs/cv --out answers

    Args:
        source: the folder of a run, of a cross-validation, of a selection, or of a package that
            `python -m bundle export` wrote.
        input: a folder of patients, the folder of one, one file with all channels, a data list, or a folder of DICOM.
        out: the folder to write to.
        ensemble: further runs or cross-validations to average with the first.
        dataset_dir: the folder that a data list's paths start from; by default the one that holds the list.
        resume: skip scans that are segmented already, and make their answers where they are missing.
        requeue: after SIGTERM, exit with code 75 in place of 143, which asks a scheduler to start the job again.
        trust: the package is trusted: its code and configs may run with your rights. Without it you are asked at the
            first use; it is remembered until a file of the package changes.
        identify: show scans that have more than the brain, whose faces might be recognised, on the pages; of DICOM,
            also write which case is which patient to OUT/identities.csv.
        channels: of DICOM, the series of a channel where the rules find none or several: "T1c=7,T1=3"; of any input,
            "T2=none" where the scans lack a channel, if the network was trained for that (recipe channel_dropout).
        dicom_seg: of DICOM, also write each mask as DICOM SEG, which holds the patient's name and ID.
        raw: the scans are as the scanner made them: remove the bias field, register the channels to each other, and
            keep the brain alone, with a picture of each step on the page (docs/raw.md).
        brain: of raw scans, what makes the brain mask: template (the default), hd-bet or deepbet.
        brain_mask: of raw scans, the file of the brain mask; of several, with {case} for the name of the case.
        settings: any setting of configs/inference.yaml, such as --overlap 0.25 or --device cpu.
    """
    from bundle.dicom.cases import is_dicom_input
    from bundle.studies import averaging, candidates, cascade, members
    from scripts.inference.scans import exit_if_cases_refused

    raw_options = read_raw_options(raw, brain, brain_mask, identify)
    if input.suffix == ".json" and dataset_dir is None:
        dataset_dir = input.parent
    configurations = read_sources(source, ensemble, trust)
    package = not configurations
    if not input.exists():
        raise InputError(
            f"input {input} does not exist: give a folder of patients, a file with all channels or a list."
        )
    given = {"input": input, "output_dir": out, "dataset_dir": dataset_dir}
    paths = {name: path.resolve() if package else path for name, path in given.items() if path is not None}
    chosen = parse_settings(settings)
    series, without = split_channels(channels)
    chosen |= without
    first = cascade.find_first_stage(configurations)
    if (first or len(configurations) > 1) and is_dicom_input(input):
        raise InputError(
            f"{input} holds DICOM, which one configuration without a first stage reads: convert it to NIfTI first."
        )
    if raw and (first or why_masks_alone(source, configurations)):
        raise InputError(
            "--raw is for one configuration of 3D scans without a first stage: use one, or leave --raw out."
        )
    if first:
        hide_warnings()
        of_first = {name: path.as_posix() for name, path in paths.items() if name != "output_dir"}
        of_first |= parse_settings(candidates.shared_settings([first]))
        of_first |= {name: chosen[name] for name in ("device", "preprocessing_device") if name in chosen}
        chosen |= cascade.segment_first_stage(first, of_first, out)
    if not (kind := why_masks_alone(source, configurations)):
        runs = configurations[0] if configurations else []
        request = AnswerRequest(
            sources=[source] if package else runs,
            input=input,
            out=out,
            dataset_dir=dataset_dir,
            resume=resume or requeue,
            requeue=requeue,
            identify=identify,
            channels=series,
            dicom_seg=dicom_seg,
            settings=chosen,
            raw=raw_options,
        )
        return answer_scans(request)
    print(f"note: {MASKS_ALONE[kind].format(source=source)}", file=sys.stderr)
    switches = {name: True for name, given in {"resume": resume, "requeue": requeue}.items() if given}
    values = {name: path.as_posix() for name, path in paths.items()} | switches | chosen
    if len(configurations) == 1:
        files = run_files(configurations[0][0], WORKFLOW)
        run_workflow("inferring", files, values | members.name_weights(configurations[0]))
        return None
    if configurations:
        hide_warnings()
        resume = resume or requeue
        refused, cases = averaging.segment_with_several(configurations, values, out, resume=resume, stacks=True)
        print("masks:", out)
        exit_if_cases_refused(refused, cases, resume)
        return None
    print(f"$ cd {source} && {long_form('inferring', [WORKFLOW], values)}", flush=True)
    os.chdir(source)
    arguments = [f"--{name}={value!r}" for name, value in {"config_file": WORKFLOW, **values}.items()]
    command = [sys.executable, "-m", "monai.bundle", "run", "inferring", *arguments]
    os.execve(sys.executable, command, {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})  # leaves the package as it is


def read_sources(source: Path, ensemble: Sequence[Path], trust: bool) -> list[list[Path]]:
    """The runs of `source` and `ensemble`, those of one configuration together; none of a package, which is checked."""
    from bundle.studies import members

    if not (source.suffix == ".zip" or is_package(source)):
        require_root()
        return members.find_configurations([source, *ensemble], ", and not a package")
    if ensemble:
        raise InputError(f"{source} is a package, which has one network: --ensemble takes runs; leave it out.")
    check_trusted_files(source, trust, ask_user)
    return []


def split_channels(channels: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The series of each channel, and the setting `without` where a channel is lacking, from "T1c=7" and "T2=none"."""
    series = dict(part.partition("=")[::2] for part in channels)
    without = [name for name, value in series.items() if value.lower() == "none"]
    series = {name: value for name, value in series.items() if name not in without}
    return series, {"without": without} if without else {}


def why_masks_alone(source: Path, configurations: Sequence[Sequence[Path]]) -> str:
    """Why there are masks and no answers, a key of `MASKS_ALONE`; "" if there are answers."""
    if len(configurations) > 1:
        return "several"
    own = read_mapping(settings_file(configurations[0][0]) if configurations else source / WORKFLOW)
    of_slides = bool(configurations) and "evaluator" in own
    if of_slides or len(own.get("patch_size", [0, 0, 0])) == 2:
        return "pictures"
    return "" if configurations or can_answer(source) else "former"
