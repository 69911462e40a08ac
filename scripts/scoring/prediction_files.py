"""Matching of prediction files to cases, in 3D and 2D.

A file belongs to case X when its name without the ending is X, or X followed by `_`, `-` or `.` and one of `SUFFIXES`
(X.nii.gz, X_pred.nii.gz, X-seg.nii.gz, X_mask.png), at any depth; or when it is the only image in a folder named X; or,
for a slice, when it is named like the slice's image, and no other case has an image of that name.
"""

import difflib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.data import pictures, tensor_files
from scripts.data.images import NIFTI
from scripts.errors import InputError
from scripts.files import walk_files

ENDINGS = (*NIFTI, ".png", *pictures.TIFF, tensor_files.SUFFIX)
SUFFIXES = ("pred", "prediction", "seg", "segmentation", "mask", "label", "labels", "output")
PROBABILITY_SUFFIXES = ("prob", "probs", "probability", "probabilities")


def images_in(folder: str | os.PathLike) -> list[Path]:
    """All images under a folder, except in subfolders for probabilities (`PROBABILITY_SUFFIXES`).

    Raises:
        InputError: the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds one image per case.")
    files = sorted(
        path
        for path in walk_files(folder)  # a link to nothing is a file that cannot be read, not no file
        if image_stem(path) is not None
        and not {part.lower() for part in path.relative_to(folder).parts[:-1]}.intersection(PROBABILITY_SUFFIXES)
    )
    if not files:
        raise InputError(f"{folder} holds no image: expected one {', '.join(ENDINGS)} file per case.")
    return files


def match_predictions(
    files: Iterable[Path], cases: Iterable[str], suffixes: Sequence[str] = SUFFIXES
) -> dict[str, Path]:
    """The file of each case that has one, by the rule above.

    Raises:
        InputError: no case has a file, or two files match the same case.
    """
    files, cases = list(files), list(cases)
    by_name, by_folder = defaultdict(set), defaultdict(set)
    ending = re.compile(rf"[_.-]({'|'.join(suffixes)})$", flags=re.IGNORECASE)
    for file in files:
        name = image_stem(file) or file.name
        by_name[name].add(file)
        by_name[ending.sub("", name)].add(file)
        by_folder[file.parent.name].add(file)
    found: dict[str, Path] = {}
    for case in cases:
        claims = by_name.get(case) or (by_folder[case] if len(by_folder.get(case, ())) == 1 else set())
        if len(claims) > 1:
            raise InputError(
                f"case {case} has more than one file: {' and '.join(map(str, sorted(claims)))}; name each file after"
                " its case, or give a folder that holds only the masks to score."
            )
        found.update((case, file) for file in claims)
    if not found:
        raise InputError(
            f"no file is named after a case: expected {cases[0]}.nii.gz, {cases[0]}_{suffixes[0]}.nii.gz or the like,"
            f" found {nearest_names(cases[0], files)}; rename the files, or use the data list that they belong to."
        )
    return found


def find_predictions(files: Iterable[Path], entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The file of each case of a data list that has one. If the label is a page of a stack, the prediction may be the
    same page of a stack named after the volume.

    Raises:
        InputError: no case has a file, or two files match the same case.
    """
    pages = {
        entry["case"]: (entry.get("volume", entry["patient"]), page)
        for entry in entries
        if (page := pictures.file_and_page(entry["label"])[1]) is not None
    }
    cases = [entry["case"] for entry in entries]
    named = {entry["case"]: _slice_name(entry) for entry in entries if "slice" in entry and entry["case"] not in pages}
    count = Counter(named.values())
    own = {case: name for case, name in named.items() if count[name] == 1}
    others = {*own.values(), *(stack for stack, _ in pages.values())} - {*cases}
    found = match_predictions(files, [*cases, *sorted(others)])
    for case, (stack, page) in pages.items():
        if case not in found and stack in found:
            found[case] = pictures.page_name(found[stack], page)
    for case, name in own.items():
        if name in found:
            found.setdefault(case, found[name])
    return {case: str(found[case]) for case in cases if case in found}


def _slice_name(entry: Mapping[str, Any]) -> str:
    image = entry["image"] if isinstance(entry["image"], str) else entry["image"][0]
    return image_stem(Path(image)) or image


def nearest_names(case: str, files: Iterable[Path]) -> str:
    """The up to three file names most similar to a case's, for a message."""
    return ", ".join(difflib.get_close_matches(case, sorted({file.name for file in files}), n=3, cutoff=0))


def image_stem(path: Path) -> str | None:
    """The file's name without the ending of an image, None if it has no such ending."""
    for suffix in sorted(ENDINGS, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return None
