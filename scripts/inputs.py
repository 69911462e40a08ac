"""Which files make a case? File name patterns, with `{case}` for the case's name, turn a folder into cases.

A pattern is matched against the end of a file's path: `{case}` is one part of a path (the same wherever it stands
twice), `*` any characters and `?` one character within a part. `{case}/{case}_t1.nii*` finds `/data/HGG/X/X_t1.nii.gz`
as case X.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.errors import InputError

NIFTI = (".nii", ".nii.gz")


@dataclass
class CaseFiles:
    """The files of one case as they were found: channel name to path, and the label if there is one."""

    case: str
    images: dict[str, Path] = field(default_factory=dict)
    label: Path | None = None


def pattern_to_regex(pattern: str) -> re.Pattern[str]:
    """Compile a file pattern so that `.search` matches the end of a path with `/` between its parts.

    Raises:
        InputError: the pattern has no `{case}`.
    """
    if "{case}" not in pattern:
        raise InputError(f"the file pattern '{pattern}' has no {{case}}: put it where the case's name stands.")
    first, *rest = re.escape(pattern).split(re.escape("{case}"))
    regex = first + r"(?P<case>[^/]+?)" + r"(?P=case)".join(rest)
    regex = regex.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return re.compile(rf"(?:^|/){regex}$")


def find_cases(
    root: str | os.PathLike,
    channel_files: Mapping[str, Sequence[str]],
    label_files: Sequence[str] = (),
) -> list[CaseFiles]:
    """All cases under `root` (a folder of cases, or the folder of one case), sorted by name.

    A case may lack channels or the label: the caller says which of them it needs (see `require_channels`).

    Args:
        root: the folder to look in, at any depth.
        channel_files: for each channel its patterns, tried in order.
        label_files: the label's patterns, tried in order.

    Raises:
        InputError: `root` is no folder, or two files claim the same channel of the same case.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the patients' scans.")
    roles = [(name, [pattern_to_regex(p) for p in patterns]) for name, patterns in channel_files.items()]
    label = [pattern_to_regex(p) for p in label_files]
    base = root.resolve().parent  # so that the folder of one case matches `{case}/...` too
    cases: dict[str, CaseFiles] = {}
    for folder, subfolders, names in os.walk(root.resolve(), followlinks=True):  # cohorts are often linked together
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):  # macOS leaves ._X.nii.gz beside X.nii.gz
                continue
            path = Path(folder, name)
            relative = path.relative_to(base).as_posix()
            for role, patterns in roles:
                if case := _case_of(relative, patterns):
                    images = cases.setdefault(case, CaseFiles(case)).images
                    if role in images:
                        raise InputError(
                            f"case {case} has two files for channel {role}: {images[role]} and {path}; keep one of"
                            f" them."
                        )
                    images[role] = path
            if case := _case_of(relative, label):
                found = cases.setdefault(case, CaseFiles(case))
                if found.label is not None:
                    raise InputError(f"case {case} has two labels: {found.label} and {path}; keep one of them.")
                found.label = path
    return [cases[name] for name in sorted(cases)]


def require_channels(case: CaseFiles, channels: Sequence[str], channel_files: Mapping[str, Sequence[str]]) -> list[str]:
    """The case's image files in the order of `channels`.

    Raises:
        InputError: a channel has no file; names it, its pattern and what is there.
    """
    for channel in channels:
        if channel not in case.images:
            there = ", ".join(f"{name} ({path.name})" for name, path in case.images.items()) or "no image"
            wanted = " or ".join(channel_files.get(channel, ["(no pattern)"])).replace("{case}", case.case)
            raise InputError(
                f"case {case.case} lacks channel {channel}: expected {wanted}, found {there}; add the file, or leave"
                " the case out."
            )
    return [str(case.images[channel]) for channel in channels]


def _case_of(relative: str, patterns: Sequence[re.Pattern[str]]) -> str | None:
    for pattern in patterns:
        if match := pattern.search(relative):
            return match["case"]
    return None
