"""Data lists: reading them, selecting training, validation and test cases, and checking the split by patient.

The data list is the Decathlon JSON: `training` and `testing` hold one entry per case,

    {"image": [one file per channel] | "one 4D file", "label": "file", "case": "id", "patient": "id", "fold": k}

with paths below `dataset_dir`, relative to it, and `"split": "test"` instead of the fold for held-out test patients. A
case that is a slice also has its `volume` and its number there, `slice`; a case may have a `site`. A case that several
raters have drawn has `"labels": {"anna": "file", ...}` in place of the label. The header has the keys channels,
label_scheme, labels, ignore (the label value of voxels to ignore), regions, boundaries (regions that are outlines of
cells), dimensions, unit, skull_stripped, seed, hashes (file to sha256) and voxels (case to the sha256 of its voxels).
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PureWindowsPath
from typing import Any

from scripts.data import pictures
from scripts.data.case_files import NOT_TEXT, name_scan
from scripts.data.raters import check_ignore, check_rater_names
from scripts.errors import InputError
from scripts.progress import progress_bar

HEADER = ("channels", "label_scheme", "labels", "regions", "hashes", "training")


def read_datalist(path: str | os.PathLike) -> dict[str, Any]:
    """Read the data list at `path` and check its form.

    Raises:
        InputError: the file is missing, is not JSON, lacks a key of the header or of an entry, or has a name or path
            that leads elsewhere (`check_names`).
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(
            f"the data list {path} cannot be read ({error.strerror}): make one with"
            " `python -m bundle prepare DIR --out datalist.json`."
        ) from error
    except ValueError as error:
        raise InputError(f"the data list {path} is not JSON ({error}): regenerate it with `prepare`.") from error
    missing = [key for key in HEADER if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(
            f"the data list {path} has no {', '.join(missing)}: regenerate it with `python -m bundle prepare`."
        )
    for part in ("training", "testing"):
        if not isinstance(content.get(part, []), list):
            raise InputError(
                f"'{part}' of {path} is not a list of cases: regenerate it with `python -m bundle prepare`."
            )
    check_names(content, path)
    check_ignore(content.get("ignore"), content["labels"], content["regions"])
    for entry in content["training"]:
        if not rater_files(entry) or ("fold" in entry) == (entry.get("split") == "test"):
            raise InputError(
                f'{path}: case {entry["case"]} of `training` needs a label, and either a fold or "split": "test".'
            )
    return content


def check_names(datalist: Mapping[str, Any], source: str | os.PathLike) -> None:
    """Check that no case has the name of another, and that no name or path of a data list leads elsewhere.

    Cases name the files that are written, so their names hold no separator. Paths stay below `dataset_dir`. A link in
    that folder may lead out of it: whoever may write there made it, whereas a list may come from anybody.

    Raises:
        InputError: names the entry of the list at `source`, what is wrong, and what is expected.
    """
    seen: set[str] = set()
    for entry in all_entries(datalist):
        missing = [key for key in ("image", "case", "patient") if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise InputError(f"an entry of {source} has no '{missing[0]}': {json.dumps(entry)[:200]}.")
        case, images = entry["case"], entry["image"]
        if not _is_inside(case) or {*"/\\"}.intersection(case) or case.startswith("."):
            raise InputError(
                f"{source} has the case {json.dumps(case)[:200]}: expected a plain name in quotes, not empty, without"
                " separators (/, \\), control characters or a dot in front; rename it."
            )
        if case in seen:
            raise InputError(f"{source} lists case {case} twice: regenerate it with `python -m bundle prepare`.")
        seen.add(case)
        named = {"patient": [entry["patient"]], "image": images if isinstance(images, list) else [images]}
        named |= {key: [entry[key]] for key in ("label", "volume") if key in entry}
        named |= {"labels": _check_raters(entry, source)} if "labels" in entry else {}
        for key, texts in named.items():
            if strange := [text for text in texts or [""] if not _is_inside(text)]:
                raise InputError(
                    f"{source}: case {case} has the {key} {json.dumps(strange[0])[:200]}: expected text that leads"
                    " nowhere else: not empty or absolute, without .. or control characters; correct it."
                )


def _check_raters(entry: Mapping[str, Any], source: str | os.PathLike) -> list[str]:
    """The label files of the raters of an entry, whose names are checked."""
    drawn, case = entry["labels"], entry["case"]
    if "label" in entry:
        raise InputError(
            f"{source}: case {case} has both `label` and `labels`: expected one label, or those of several raters by"
            " name; remove one of the two."
        )
    if not isinstance(drawn, dict) or not drawn:
        raise InputError(
            f"{source}: case {case} has the labels {json.dumps(drawn)[:200]}: expected the file of each rater by name,"
            ' {"anna": "file", "ben": "file"}.'
        )
    check_rater_names(drawn, source)
    return [*drawn.values()]


def _is_inside(text: object) -> bool:
    """Whether this is text that, as a path, stays below the folder that it starts from, on any system."""
    if not isinstance(text, str) or NOT_TEXT.search(text):
        return False
    path = PureWindowsPath(text)  # it knows the separators, drives and roots of all systems
    return bool(text.strip(". /\\")) and not (path.drive or path.root or ".." in path.parts)


def all_entries(datalist: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All cases of the list, with and without a label."""
    return [*datalist["training"], *datalist.get("testing", [])]


def rater_files(entry: Mapping[str, Any]) -> dict[str, str]:
    """The label files of an entry by rater, who is "" for the only label of a case; empty without a label."""
    return dict(entry["labels"]) if "labels" in entry else {"": entry["label"]} if "label" in entry else {}


def known_labels(datalist: Mapping[str, Any]) -> list[int]:
    """The values that a label map of the list may hold besides 0: labels, regions, and the value to ignore."""
    regions = {int(value) for values in datalist["regions"].values() for value in values}
    ignore = datalist.get("ignore")
    return sorted({*datalist["labels"].values(), *regions, *([] if ignore is None else [ignore])})


def entry_files(entry: Mapping[str, Any]) -> list[str]:
    """The files of one entry as the list names them: images in channel order, then the labels if there are any.

    For a page of a TIFF (`stack.tif#5`, see `scripts.data.pictures`) it is the file.
    """
    images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    return [pictures.file_of_page(name).as_posix() for name in (*images, *rater_files(entry).values())]


def name_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with a case and a patient; by default both are the name of its image."""
    if "case" in entry:
        return dict(entry)
    first = entry["image"] if isinstance(entry["image"], str) else entry["image"][0]
    name = name_scan(first)
    return {"case": name, "patient": name, **entry}


def select_cases(
    datalist: Mapping[str, Any], dataset_dir: str | os.PathLike, part: str, fold: int | None = None
) -> list[dict[str, Any]]:
    """The entries of one part with their files as absolute paths.

    Where `labels` are those of several raters, `label` is the first one, for pictures.

    Args:
        datalist: from `read_datalist`.
        dataset_dir: the folder that the list's paths start from.
        part: `training` (every fold but `fold`), `validation` (`fold`), `test` (held out), `labelled` (all three) or
            `testing` (no label).
        fold: the validation fold, for `training` and `validation`.

    Raises:
        InputError: the part is empty, or the fold is not in the list.
    """
    labelled = datalist["training"]
    if part in ("training", "validation"):
        folds = sorted({entry["fold"] for entry in labelled if "fold" in entry})
        if fold not in folds:
            raise InputError(f"the data list has no fold {fold}: it has {', '.join(map(str, folds)) or 'none'}.")
    chosen = {
        "training": lambda: [e for e in labelled if e.get("fold", fold) != fold],
        "validation": lambda: [e for e in labelled if e.get("fold") == fold],
        "test": lambda: [e for e in labelled if e.get("split") == "test"],
        "labelled": lambda: labelled,
        "testing": lambda: datalist.get("testing", []),
    }[part]()
    if not chosen:
        raise InputError(f"the data list has no case for {part}: make one with more patients, or other folds.")
    return [_absolute(entry, Path(dataset_dir)) for entry in chosen]


def cases_of_rank(chosen: Sequence[dict[str, Any]], rank: int, world_size: int) -> list[dict[str, Any]]:
    """The cases of one of several processes.

    Raises:
        InputError: there are fewer cases than processes.
    """
    if len(chosen) < world_size:
        raise InputError(f"{len(chosen)} cases cannot be shared by {world_size} processes: use fewer processes.")
    return list(chosen[rank::world_size])


def patients_in_part(datalist: Mapping[str, Any], part: str, fold: int | None = None) -> list[str]:
    """The patients of one part (see `select_cases`), sorted."""
    return sorted({entry["patient"] for entry in select_cases(datalist, ".", part, fold)})


def part_to_evaluate(datalist: Mapping[str, Any], part: str | None = None) -> str:
    """The part to evaluate: the requested one, else the test patients, else the validation fold.

    Raises:
        InputError: the part does not exist.
    """
    if part is None:
        set_aside = any(entry.get("split") == "test" for entry in datalist["training"])
        return "test" if set_aside else "validation"
    if part not in ("test", "validation", "labelled"):
        raise InputError(f"part is '{part}': expected test, validation or labelled.")
    return part


def check_datalist(datalist: Mapping[str, Any], dataset_dir: str | os.PathLike, hashes: bool = True) -> None:
    """Check that every patient, and every set of identical voxels, is in one fold only, and that no file has changed.

    Args:
        datalist: from `read_datalist`.
        dataset_dir: the folder that the list's paths start from.
        hashes: read every file and compare its hash with the list (about a second per GB).

    Raises:
        InputError: names the first patient, case or file that fails.
    """
    check_split(datalist)
    check_files(datalist, all_entries(datalist), dataset_dir, hashes)


def check_split(datalist: Mapping[str, Any]) -> None:
    """Check that no patient, and no two cases with identical voxels, are in different folds.

    Raises:
        InputError: names the patient or the cases in two folds.
    """
    where: dict[str, set] = defaultdict(set)
    twins: dict[str, list[dict]] = defaultdict(list)
    for entry in datalist["training"]:
        where[entry["patient"]].add(_place(entry))
        if voxels := datalist.get("voxels", {}).get(entry["case"]):
            twins[voxels].append(entry)
    for patient, places in where.items():
        if len(places) > 1:
            raise InputError(
                f"patient {patient} is in {' and '.join(sorted(places))} of the data list, which is data leakage:"
                " regenerate the list with `python -m bundle prepare`."
            )
    for same in twins.values():
        if len({_place(entry) for entry in same}) > 1:
            raise InputError(
                f"cases {' and '.join(entry['case'] for entry in same)} hold the same voxels but are in different"
                " folds: regenerate the data list with `python -m bundle prepare`."
            )


def check_files(
    datalist: Mapping[str, Any],
    wanted: Iterable[Mapping[str, Any]],
    dataset_dir: str | os.PathLike,
    hashes: bool = True,
) -> None:
    """Check that the files of the `wanted` entries (paths as in the list) exist and, with `hashes`, are unchanged.

    Raises:
        InputError: names the first file that is missing or changed.
    """
    root = Path(dataset_dir)
    files = list(dict.fromkeys(name for entry in wanted for name in entry_files(entry)))
    for name in files:
        if not (root / name).is_file():
            raise InputError(
                f"{root / name} is in the data list but not on disk: check dataset_dir, or run `prepare` again."
            )
    if not hashes:
        return
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda name: file_hash(root / name), files)
        for name, value in zip(
            files, progress_bar(found, total=len(files), desc="checking files", unit="file"), strict=True
        ):
            if datalist["hashes"].get(name) != value:
                raise InputError(
                    f"{root / name} has changed since the data list was made: run `python -m bundle prepare` again to"
                    " check it and to record it in the list."
                )


def file_hash(path: str | os.PathLike) -> str:
    """The sha256 of a file, as hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_of_files(paths: Sequence[str | os.PathLike]) -> str:
    """The sha256 of one file, or of the hashes of several, in their order."""
    hashes = [file_hash(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def datalist_hash(datalist: Mapping[str, Any]) -> str:
    """The sha256 of the list itself, independent of its formatting; runs record it."""
    return hashlib.sha256(json.dumps(datalist, sort_keys=True).encode()).hexdigest()


def require_same_task(
    datalist: Mapping[str, Any], channels: Sequence[str], label_scheme: str, labels: Mapping[str, int]
) -> None:
    """Check that the list and the config have the same channels and the same labels.

    Raises:
        InputError: says what each of them has.
    """
    if list(datalist["channels"]) != list(channels):
        raise InputError(
            f"the data list has channels {', '.join(datalist['channels'])}, the config has {', '.join(channels)}:"
            " use the task that the list was made for (configs/tasks/)."
        )
    if datalist["label_scheme"] != label_scheme or dict(datalist["labels"]) != dict(labels):
        raise InputError(
            f"the data list has label scheme {datalist['label_scheme']} {dict(datalist['labels'])}, the config has"
            f" {label_scheme} {dict(labels)}: use the task that the list was made for (configs/tasks/)."
        )


def require_same_ignore(datalist: Mapping[str, Any], ignore: int | None) -> None:
    """Check that the list and the config ignore the same label value.

    Raises:
        InputError: says what each of them has.
    """
    declared = datalist.get("ignore")
    if ignore != declared:
        found, own = ("no value" if value is None else str(value) for value in (declared, ignore))
        ways = f"--ignore {declared}" if ignore is None else f"`python -m bundle prepare --ignore {ignore}`"
        raise InputError(
            f"the data list has {found} to ignore, the config has {own}: give {ways}, or a task that both are made for"
            " (configs/tasks/)."
        )


def _place(entry: Mapping[str, Any]) -> str:
    return "the test set" if entry.get("split") == "test" else f"fold {entry['fold']}"


def _absolute(entry: Mapping[str, Any], root: Path) -> dict[str, Any]:
    image = entry["image"]
    made = {**entry, "image": [str(root / i) for i in image] if isinstance(image, list) else str(root / image)}
    if "labels" in entry:
        made["labels"] = {rater: str(root / file) for rater, file in entry["labels"].items()}
    if drawn := rater_files(entry):
        made["label"] = str(root / next(iter(drawn.values())))
    return made
