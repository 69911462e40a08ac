"""File name patterns that turn a folder into cases, with `{case}` for the name of the case.

A pattern is matched against the end of a file's path: `{case}` matches within one part of a path (the same text where
it occurs twice), `*` any characters and `?` one character within a part. `{case}/{case}_t1.nii*` finds
`/data/HGG/X/X_t1.nii.gz` as case X.

`{slice}` instead of `{case}` is the number of a slice: `{patient}/{patient}_{slice}.tif` finds `/data/X/X_7.tif` as
slice 7 of patient X. Without `{patient}` the slices of a folder are one volume. So are the pages of a TIFF that a
pattern with `{case}` finds: page 7 of X.tif, counted from 0, is the case X_7.

The name of a case depends on its own path and pattern alone, never on the other files. It is the text of `{case}`, or
the file's name up to the slice's number; in front of it the patient, or the volume of a slice without a patient, unless
it starts with that already: `{patient}/{case}/t1.nii` finds `/data/P1/week-000/t1.nii` as P1_week-000.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scripts.data import nifti, pictures, tensor_files
from scripts.data.images import ENDINGS, is_nifti
from scripts.errors import InputError
from scripts.files import walk_files

PLACEHOLDERS = {"{case}": "[^/]+?", "{patient}": "[^/]+?", "{slice}": r"\d+"}

ANY_NIFTI = ".nii*"  # the ending of a pattern, which NRRD and MetaImage files match too
ANY_VOLUME = r"\.(?:nii\*|nrrd|mha)"

NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters; bytes of a name that are not UTF-8


@dataclass
class CaseFiles:
    """The files of one case as they were found: channel name to path, and the label if there is one.

    Attributes:
        case: its name.
        images: a path for each channel, the same one if a file holds several.
        labels: that of each rater; of a case with one label that of the rater "".
        patient: from the pattern.
        volume: for a slice, the folder or file that it belongs to.
        slice: its number there.
        placeholders: what the pattern's placeholders stand for.
    """

    case: str
    images: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, Path] = field(default_factory=dict)
    patient: str | None = None
    volume: str | None = None
    slice: int | None = None
    placeholders: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> Path | None:
        """The label if there is one; of several raters the first one's."""
        return next(iter(self.labels.values()), None)


@dataclass
class Case:
    """The files of one case.

    Attributes:
        case: its name.
        images: one file per channel, in order; or, if `stacked`, one file of all channels. A page of a TIFF is written
            `stack.tif#5` (see `scripts.data.pictures`).
        label: if there is one; of several raters the first one's.
        stacked: the channels are the last axis of one file.
        problems: what is missing according to the layout.
        patient: from the file names.
        volume: for a slice, what it belongs to.
        slice: its number there.
        labels: the label of each rater, by name; empty for a case with one label.
    """

    case: str
    images: list[Path]
    label: Path | None = None
    stacked: bool = False
    problems: list[str] = field(default_factory=list)
    patient: str | None = None
    volume: str | None = None
    slice: int | None = None
    labels: dict[str, Path] = field(default_factory=dict)

    def label_files(self) -> dict[str, Path]:
        """The label of each rater, who is "" for the only label of a case; empty without a label."""
        return self.labels or ({"": self.label} if self.label else {})


def pattern_to_regex(pattern: str) -> re.Pattern[str]:
    """Compile a file pattern so that `.search` matches the end of a path with `/` between its parts.

    Raises:
        InputError: the pattern has neither `{case}` nor `{slice}`, or both.
    """
    if ("{case}" in pattern) == ("{slice}" in pattern):
        both = "both {case} and {slice}" if "{case}" in pattern else "no {case}"
        raise InputError(
            f"the file pattern '{pattern}' has {both}: put {{case}} in place of the case's name, or {{slice}} in place"
            " of a slice's number."
        )
    regex = re.escape(_lower_ending(pattern))
    regex = regex.replace(re.escape(ANY_NIFTI), ANY_VOLUME) if pattern.endswith(ANY_NIFTI) else regex
    for name, characters in PLACEHOLDERS.items():
        first, *rest = regex.split(re.escape(name))
        group = name.strip("{}")
        regex = first + (f"(?P<{group}>{characters})" + f"(?P={group})".join(rest) if rest else "")
    regex = regex.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return re.compile(rf"(?:^|/){regex}$")


def find_cases(
    root: str | os.PathLike,
    channel_files: Mapping[str, Sequence[str]],
    label_files: Sequence[str] | Mapping[str, Sequence[str]] = (),
) -> list[CaseFiles]:
    """All cases under `root` (a folder of cases, or the folder of one case), sorted by name, slices by number.

    A case may lack channels or the label: the caller checks what it needs (see `require_channels`).

    Args:
        root: the folder to look in, at any depth.
        channel_files: for each channel its patterns, tried in order.
        label_files: the label's patterns, tried in order; or those of each rater by name.

    Raises:
        InputError: `root` is not a folder, two files match the same channel of the same case, or two cases have one
            name.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the patients' scans.")
    return group_files(walk_files(root), root, channel_files, label_files)


def group_files(
    files: Iterable[Path],
    root: Path,
    channel_files: Mapping[str, Sequence[str]],
    label_files: Sequence[str] | Mapping[str, Sequence[str]] = (),
) -> list[CaseFiles]:
    """The cases of these files, as absolute paths below the folder `root` (see `find_cases`)."""
    single = [page for found in _gather(files, root, channel_files, label_files) for page in _pages(found)]
    for case in single:
        require_text(case.case, _a_file(case))
    _require_unique_names(single)
    return sorted(single, key=lambda c: (c.patient or c.volume or c.case, c.slice or 0, c.case))


def require_channels(
    case: CaseFiles, channels: Sequence[str], channel_files: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> list[str]:
    """The case's image files in the order of `channels`, or the one file that holds them all.

    `optional` are channels that a network may do without, if it is told so.

    Raises:
        InputError: a channel has no file; names it, its pattern and the files found.
    """
    for channel in channels:
        if channel not in case.images:
            there = ", ".join(f"{name} ({path.name})" for name, path in case.images.items()) or "no image"
            wanted = " or ".join(channel_files.get(channel, ["(no pattern)"]))
            for name, text in case.placeholders.items():
                wanted = wanted.replace(f"{{{name}}}", text)
            ways = "add the file, or leave the case out"
            if channel in optional:
                ways = f'add the file, or segment without it: --channels "{channel}=none"'
            raise InputError(f"case {case.case} lacks channel {channel}: expected {wanted}, found {there}; {ways}.")
    return [str(case.images[channel]) for channel in channels]


def image_of_case(
    path: str | os.PathLike, channels: Sequence[str], channel_files: Mapping[str, Sequence[str]]
) -> str | list[str] | None:
    """The image of the one case in a folder, or of the case that a channel's file belongs to, as a data list's entry.

    Only that folder is searched. The last part of a pattern is enough (`{case}_t1.nii*` of `{case}/{case}_t1.nii*`), so
    that cases may share a folder.

    Args:
        path: the folder or file.
        channels: in the order of the network.
        channel_files: for each channel its patterns, tried in order.

    Returns:
        see `image_entry`; None if the path is a file that no pattern matches.

    Raises:
        InputError: a channel is missing, or the folder holds no case or several.
    """
    path = Path(path).absolute()
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    found = [case for case in _gather(files, folder, with_file_names(channel_files)) if case.images]
    if not path.is_dir():
        found = [case for case in found if path in case.images.values()]
        if not found:
            return None
    if len(found) != 1:
        names = ", ".join(case.case for case in found) or "none"
        wanted = ", ".join(pattern for several in channel_files.values() for pattern in several)
        raise InputError(f"{path} must hold the files of one case ({wanted}), but holds {len(found)}: {names[:200]}.")
    return image_entry(require_channels(found[0], channels, channel_files))


def channels_of_file(path: str | os.PathLike, channel_files: Mapping[str, Sequence[str]]) -> list[str]:
    """The channels whose patterns match the name of this file."""
    file = pictures.file_of_page(path)
    known = with_file_names(channel_files)
    return [name for name, patterns in known.items() if _match(file, [pattern_to_regex(p) for p in patterns], file)]


def with_file_names(channel_files: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Each channel's patterns, and their last parts if these contain the case."""
    last = {name: [pattern.rpartition("/")[2] for pattern in patterns] for name, patterns in channel_files.items()}
    return {name: [*channel_files[name], *(part for part in last[name] if "{case}" in part)] for name in channel_files}


def image_entry(images: Sequence[str]) -> str | list[str]:
    """The `image` of a data list's entry: one file per channel, or the one file that holds all channels."""
    return images[0] if len(images) > 1 and len(set(images)) == 1 else list(images)


def _gather(
    files: Iterable[Path],
    root: Path,
    channel_files: Mapping[str, Sequence[str]],
    label_files: Sequence[str] | Mapping[str, Sequence[str]] = (),
) -> list[CaseFiles]:
    """The cases of these files, from their absolute paths: the folder of one case matches `{case}/...` too."""
    roles = [(name, [pattern_to_regex(p) for p in patterns]) for name, patterns in channel_files.items()]
    of_raters = label_files if isinstance(label_files, Mapping) else {"": label_files}
    labels = {rater: [pattern_to_regex(p) for p in patterns] for rater, patterns in of_raters.items()}
    cases: dict[tuple, CaseFiles] = {}
    for path in files:
        matches = ((rater, _match(path, patterns, root)) for rater, patterns in labels.items())
        rater, drawn = next((pair for pair in matches if pair[1]), ("", None))
        for role, patterns in roles:
            match = _match(path, patterns, root)
            if match is None:
                continue
            both = drawn and tensor_files.is_tensor_file(path) and _own_name(drawn) == _own_name(match)
            # masks/X.png fits `{case}.png` too: the role that gives the shorter case name wins
            if drawn and not both and len(_own_name(drawn)) <= len(_own_name(match)):
                continue
            found = cases.setdefault(_key(match), match)
            if role in found.images:
                what = f"case {match.case} has two files for channel {role}"
                raise InputError(_two_files(what, found.images[role], path))
            found.images[role] = path
            if role == next(name for name in channel_files if name in found.images):
                found.case = match.case  # a slice is 007 in one folder and 7 in another
            drawn = drawn if both else None
        if drawn:
            found = cases.setdefault(_key(drawn), drawn)
            if rater in found.labels:
                whose = f"case {drawn.case} has two labels{f' of {rater}' if rater else ''}"
                raise InputError(_two_files(whose, found.labels[rater], path))
            found.labels[rater] = path
    for case in cases.values():
        case.labels = {rater: case.labels[rater] for rater in labels if rater in case.labels}  # in one order
    return list(cases.values())


def _two_files(what: str, first: Path, second: Path) -> str:
    """A sentence about two files that the patterns take for one, which may be those of two patients."""
    if first.parent == second.parent:
        return f"{what}: {first} and {second}; give a pattern that fits only the one that is meant."
    return (
        f"{what}: {first} and {second}; if these are two patients or time points, name the patient's folder in every"
        " pattern, as in {patient}/{case}/...; else give patterns that fit only the one that is meant."
    )


def name_scan(path: str | os.PathLike) -> str:
    """The name of the case of a file that no pattern matches: the file's name without its ending."""
    return nifti.nifti_stem(Path(path)) if is_nifti(path) else Path(path).stem


def require_text(name: str, file: Path) -> None:
    """Refuse the name of a case that a terminal, a table or a JSON file cannot hold.

    Raises:
        InputError: it has control characters, or bytes that are not UTF-8.
    """
    if NOT_TEXT.search(name):
        raise InputError(
            f"{str(file)!a} gives a case the name {name!a}: rename it without control characters, in UTF-8."
        )


def _lower_ending(name: str) -> str:
    """The name with the ending of an image in small letters: scanners write .NII.GZ too."""
    ending = re.search(rf"({'|'.join(map(re.escape, ENDINGS))})$", name, re.IGNORECASE)
    return name[: ending.start()] + ending[0].lower() if ending else name


def _match(file: Path, patterns: Sequence[re.Pattern[str]], root: Path) -> CaseFiles | None:
    """The case that a file below `root` belongs to, without files; None if no pattern matches."""
    path = _lower_ending(file.as_posix())
    for pattern in patterns:
        if match := pattern.search(path):
            texts = match.groupdict()
            patient, number, volume = texts.get("patient"), texts.get("slice"), None
            if number is not None:
                before = path[: match.start()]
                below = before[len(root.as_posix()) + 1 :]
                volume = "/".join(filter(None, (below, patient))) or before.rpartition("/")[2]
            found = CaseFiles("", patient=patient, volume=volume, placeholders=texts)
            if number is not None:
                found.slice = int(number)
                texts["case"] = path[: match.end("slice")].rpartition("/")[2]
            found.case = _join_name(patient or volume, texts["case"])
            return found
    return None


def _join_name(owner: str | None, own: str) -> str:
    """The name of a case of a patient or volume: see this module's first lines."""
    owner = (owner or "").replace("/", "_")
    starts = own.startswith(owner) and not own[len(owner) :][:1].isalnum()
    return own if not owner or starts else f"{owner}_{own}"


def _own_name(found: CaseFiles) -> str:
    return found.placeholders["case"]


def _key(found: CaseFiles) -> tuple:
    return (found.case, found.patient) if found.slice is None else (found.volume, found.patient, found.slice)


def _pages(found: CaseFiles) -> Iterator[CaseFiles]:
    """The case itself, or a case for each page of its files."""
    numbers = {file: pictures.count_pages(file) for file in (*found.images.values(), *found.labels.values())}
    most = max(numbers.values())
    if most == 1:
        yield found
        return
    if found.slice is not None:
        file = max(numbers, key=lambda file: numbers[file])
        raise InputError(f"{file} has {most} pages, expected one for the pattern's {{slice}}: use {{case}} for stacks.")
    if min(numbers.values()) != most:
        listed = " and ".join(f"{number} in {file}" for file, number in numbers.items())
        raise InputError(
            f"the files of case {found.case} have different numbers of pages, {listed}: give all the same number."
        )
    for k in range(most):
        images = {channel: pictures.page_name(file, k) for channel, file in found.images.items()}
        labels = {rater: pictures.page_name(file, k) for rater, file in found.labels.items()}
        yield replace(found, case=f"{found.case}_{k}", images=images, labels=labels, volume=found.case, slice=k)


def _require_unique_names(cases: Iterable[CaseFiles]) -> None:
    seen: dict[str, CaseFiles] = {}
    for case in cases:
        if (first := seen.setdefault(case.case, case)) is not case:
            raise InputError(
                f"two cases would both be called {case.case}, that of {_a_file(first)} and that of {_a_file(case)}:"
                " rename the folder of one of them."
            )


def _a_file(case: CaseFiles) -> Path:
    return next(iter((*case.images.values(), *case.labels.values())))
