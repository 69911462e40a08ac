"""Checks of one case whose image is a slide: every tile is read once, block by block."""

import numpy as np

from scripts.data.case_files import Case
from scripts.data.case_record import CaseRecord, ExpectedCase
from scripts.data.datalist import file_hash
from scripts.data.slides import Slide, walk_blocks
from scripts.errors import InputError


def check_slide(case: Case, expected: ExpectedCase) -> CaseRecord:
    """Read the slide of a case and its label, and report problems; memory does not depend on their size.

    Args:
        case: its files; problems that the layout found stay in the record.
        expected: its channels and labels.
    """
    record = CaseRecord(case.case, case.patient or case.volume or case.case, list(case.problems))
    if record.problems:
        return record
    try:
        if case.labels or expected.ignore is not None:
            raise InputError(
                f"{case.images[0]} is a slide, which takes one label without voxels to ignore: leave out --raters and"
                " --ignore."
            )
        slide = Slide(case.images)
        _check_image(slide, expected, record)
        if case.label:
            _check_label(Slide(case.label, key="label"), slide, expected, record)
        files = dict.fromkeys([*slide.files, *([case.label] if case.label else [])])
        record.hashes = {file: file_hash(file) for file in files}
        digest = "".join(record.hashes[file] for file in slide.files)
        record.channels = {name: f"{digest} {place}" for place, name in enumerate(expected.channels)}
    except InputError as error:
        record.problems.append(str(error))
    return record


def _check_image(slide: Slide, expected: ExpectedCase, record: CaseRecord) -> None:
    record.shape, record.spacing = slide.shape, None
    for block in walk_blocks(slide.shape):
        channels = len(slide.read(*block))
        if channels != len(expected.channels):
            raise InputError(
                f"{slide.files[0]} has {channels} channels, expected {len(expected.channels)}"
                f" ({', '.join(expected.channels)}): fix the channel names, or write the slide again."
            )
    _, mean, deviation = slide.summary
    if (deviation <= 1e-6).all():
        raise InputError(f"{slide.files[0]} shows nothing: its tissue has one colour; leave it out.")
    record.bright = dict(zip(expected.channels, np.log(np.maximum(mean.ravel(), 1e-6)).tolist(), strict=True))


def _check_label(label: Slide, slide: Slide, expected: ExpectedCase, record: CaseRecord) -> None:
    file = label.files[0]
    if label.shape not in slide.levels:
        sizes = ", ".join(f"{x} x {y}" for x, y in slide.levels)
        raise InputError(
            f"{file} has {label.shape[0]} x {label.shape[1]} pixels, the levels of its slide {sizes}: write the label"
            " in the size of the level to train on."
        )
    counts: dict[int, int] = {}
    for block in walk_blocks(label.shape):
        part = label.read(*block)
        if len(part) != 1 or part.dtype.kind not in "bui":
            raise InputError(f"{file} holds colours or fractions: a label has one whole number per pixel.")
        for value, count in zip(*np.unique(part, return_counts=True), strict=True):
            counts[int(value)] = counts.get(int(value), 0) + int(count)
    record.counts = {value: count for value, count in sorted(counts.items()) if value != expected.labels_fill}
    record.volume = sum(record.counts.values())
    if strange := sorted(record.counts.keys() - expected.labels):
        raise InputError(
            f"{file} holds the value {strange[0]} ({record.counts[strange[0]]} pixels), which is not in label scheme"
            f" {expected.scheme}{expected.hint(record.case, {*record.counts})}: choose the scheme of these data, or fix"
            " the label."
        )
    if not record.counts and not expected.empty_labels:
        raise InputError(f"{file} is empty: it labels no pixel; draw the tumour, or give --allow_empty.")
