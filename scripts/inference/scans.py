"""The input scans of inference, and those without a mask yet."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts import distributed
from scripts.data import datalist, pictures, tensor_files
from scripts.data.case_files import (
    CaseFiles,
    find_cases,
    group_files,
    image_entry,
    name_scan,
    require_channels,
    require_text,
)
from scripts.data.images import is_volume
from scripts.errors import EXIT_SOME_FAILED, InputError
from scripts.inference.mask_records import MaskRecords
from scripts.inference.mask_saver import mask_path, stack_path


def find_input_scans(
    source: str | os.PathLike | None,
    channels: Sequence[str],
    channel_files: Mapping[str, Sequence[str]],
    dataset_dir: str | os.PathLike = ".",
    optional: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The cases of a data list, a folder of cases, the folder of one case, a folder of single files, or one file.

    A single file is a 4D NIfTI, a picture or a `.pt` file with all channels; a TIFF of several pages gives one case per
    page. A case has the same name in all of these (`scripts.data.case_files`).

    Args:
        source: the user's input; None: no cases, for programs that only load the bundle.
        channels: the network's channels, in order.
        channel_files: the file name patterns of each channel (`scripts.data.case_files`).
        dataset_dir: the folder that a data list's paths start from. Of a list, the unlabelled cases are segmented, or
            all if every case has a label.
        optional: channels that the network may do without, for the refusal of a case that lacks one.

    Returns:
        An entry with `image` and `case` per case; one that lacks a channel has the reason under `refused`.

    Raises:
        InputError: there is no case, all are refused, or two masks would have the same name.
    """
    if source is None:
        return []
    source = Path(source)
    if source.suffix == ".json":
        content = datalist.read_datalist(source)
        entries = datalist.select_cases(content, dataset_dir, "testing" if content.get("testing") else "labelled")
        return [{"image": entry["image"], "case": entry["case"]} for entry in entries]
    if source.is_file():
        file = source.absolute()
        whole = [case for case in group_files([file], file.parent, channel_files) if len(case.images) == len(channels)]
        return [_case_or_refusal(case, channels, channel_files, optional) for case in whole] or _slices_or_scan(source)
    if not source.exists():
        raise InputError(f"input {source} does not exist: give a folder of patients, one scan, or a data list.")
    found = [case for case in find_cases(source, channel_files) if case.images]
    if found:
        cases = [_case_or_refusal(case, channels, channel_files, optional) for case in found]
        if all("refused" in case for case in cases):
            raise InputError(cases[0]["refused"] if len(cases) == 1 else f"no case is complete; {cases[0]['refused']}")
        return cases
    visible = sorted(path for path in source.iterdir() if not path.name.startswith("."))  # macOS leaves ._X next to X
    kinds = (is_volume, pictures.is_picture, tensor_files.is_tensor_file)
    single = next(filter(None, ([path for path in visible if kind(path)] for kind in kinds)), [])
    files: dict[str, Path] = {}
    for path in single:
        if (first := files.setdefault(name_scan(path), path)) != path:
            raise InputError(
                f"{first} and {path} would both give the mask of case {name_scan(path)}: give one of them another name."
            )
    if not files:
        patterns = ", ".join(pattern for several in channel_files.values() for pattern in several)
        raise InputError(
            f"input {source} holds no scan: expected files like {patterns}, or one 4D NIfTI, NRRD, picture or .pt"
            " file per case."
        )
    return [case for path in files.values() for case in _slices_or_scan(path)]


def _case_or_refusal(
    case: CaseFiles, channels: Sequence[str], channel_files: Mapping[str, Sequence[str]], optional: Sequence[str]
) -> dict[str, Any]:
    try:
        return {"image": image_entry(require_channels(case, channels, channel_files, optional)), "case": case.case}
    except InputError as error:
        return {"image": [str(path) for path in case.images.values()], "case": case.case, "refused": str(error)}


def _slices_or_scan(file: Path) -> list[dict[str, Any]]:
    require_text(name_scan(file), file)
    number = pictures.count_pages(file)
    if number == 1:
        return [{"image": str(file), "case": name_scan(file)}]
    return [{"image": str(pictures.page_name(file, k)), "case": f"{name_scan(file)}_{k}"} for k in range(number)]


def own_cases(find: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """This process's part of the cases that `find` returns; the pages of one file stay together.

    Raises:
        InputError: another process has ended.
    """

    def file(case: Mapping[str, Any]) -> Path:
        image = case["image"]
        return pictures.file_of_page(image if isinstance(image, str) else image[0])

    return distributed.find_own_part(find, kind=file)


def unsegmented_cases(cases: Sequence[Mapping[str, Any]], records: MaskRecords, resume: bool) -> list[dict[str, Any]]:
    """The cases whose mask is not in the folder of `records` yet.

    Args:
        cases: entries with `case` and `image`.
        records: of that folder; with `resume`, a mask without a matching record is made again.
        resume: skip cases whose mask is finished.

    Raises:
        InputError: masks exist and `resume` is off.
    """
    folder = records.output_dir
    records.remove_leftovers()
    there = [case for case in cases if any(mask.exists() for mask in _mask_files(folder, case))]
    if there and not resume:
        raise InputError(
            f"{folder} already holds masks of {len(there)} of {len(cases)} cases: choose another folder, or skip"
            " them with --resume."
        )
    finished = {case["case"] for case in there if records.is_finished(case["case"], case["image"])}
    # a page whose mask is in a stack is made again with the other pages
    broken = {_mask_files(folder, case)[-1] for case in cases if case["case"] not in finished}
    left = []
    for case in cases:
        single, *stack = _mask_files(folder, case)
        if case["case"] not in finished or (stack and stack[0] in broken and not single.exists()):
            left.append(dict(case))
            records.expect(case["case"], case["image"])
            records.forget(case["case"], [single])
    if there:
        print(f"{len(cases) - len(left)} of {len(cases)} cases are already in {folder}")
    if len(there) > len(cases) - len(left):
        print(f"{len(there) - len(cases) + len(left)} masks there were not made of these files, weights and settings")
    return left


def _mask_files(folder: Path, case: Mapping[str, Any]) -> list[Path]:
    """The file of a case's mask, and of its stack where it is a page of one."""
    stack = stack_path(folder, case["case"], case["image"])
    return [mask_path(folder, case["case"], case["image"]), *([stack] if stack else [])]


def print_refused_cases(refused: Mapping[str, str], cases: int) -> None:
    """Print the refused cases of all processes on stderr, with their reasons.

    Args:
        refused: this process's, case to reason (`scripts.inference.prefetch.PrefetchedDataset`).
        cases: number of cases of this process.
    """
    of_all, total = _gather_refused(refused, cases)
    if of_all and distributed.is_first_process():
        lines = [f"{len(of_all)} of {total} cases could not be segmented:"]
        print(*lines, *(f"  {case}: {reason}" for case, reason in of_all.items()), sep="\n", file=sys.stderr)


def exit_if_cases_refused(refused: Mapping[str, str], cases: int, resume: bool) -> None:
    """Print the refused cases and end the program with exit code 1, if there are any.

    Args:
        refused: as for `print_refused_cases`.
        cases: as for `print_refused_cases`.
        resume: whether other cases may have been segmented before.

    Raises:
        InputError: all cases were refused.
    """
    of_all, total = _gather_refused(refused, cases)
    if not of_all:
        return
    if len(of_all) == total and not resume:
        case, reason = next(iter(of_all.items()))
        raise InputError(reason if total == 1 else f"none of the {total} cases could be segmented; {case}: {reason}")
    print_refused_cases(refused, cases)
    sys.stdout.flush()
    distributed.wait_for_all()  # torchrun ends the first process as soon as another has ended
    sys.exit(EXIT_SOME_FAILED)


def _gather_refused(refused: Mapping[str, str], cases: int) -> tuple[dict[str, str], int]:
    return dict(distributed.gather_items([*refused.items()])), sum(distributed.gather_items([cases]))
