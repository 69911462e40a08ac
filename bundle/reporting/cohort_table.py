"""A cohort in numbers, for the terminal: intensities, spacing and size, and the frequency of labels and regions."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich import box
from rich.table import Table

from bundle.cohort.fingerprint import CaseFingerprint, ClassFrequency

BACKGROUND = 0.3  # share of voxels with the same value, above which they are likely background


def cohort_tables(
    records: Sequence[CaseFingerprint],
    channels: Sequence[str],
    frequencies: tuple[Sequence[ClassFrequency], Sequence[ClassFrequency]],
    unit: str,
) -> list[Table]:
    """Tables of intensities by channel, of size and spacing by axis, and of the frequency of labels and regions."""
    intensities = Table("channel", "median (least to most)", "interquartile range per case", box=box.SIMPLE_HEAD)
    for number, name in enumerate(channels):
        of_cases = np.array([record.percentiles[number] for record in records])
        medians = of_cases[:, 2]
        width = np.nanmedian(of_cases[:, 3] - of_cases[:, 1])
        ends = f"{np.nanmin(medians):.4g} to {np.nanmax(medians):.4g}"
        intensities.add_row(name, f"{np.nanmedian(medians):.4g} ({ends})", f"{width:.4g}")
    sizes = Table("axis", "size in voxels", f"spacing in {unit}", box=box.SIMPLE_HEAD)
    for axis in range(len(records[0].shape)):
        of_cases = [[record.shape[axis] for record in records], [record.spacing[axis] for record in records]]
        sizes.add_row("xyz"[axis], *map(_range, of_cases))
    classes = Table("class", "share of the foreground", "imbalance", "cases with it", box=box.SIMPLE_HEAD)
    for kind, several in zip(("label", "region"), frequencies, strict=True):
        for one in several:
            cases = f"{one.cases} of {len(records)}"
            classes.add_row(f"{kind} {one.name}", f"{100 * one.share:.2f} %", one.imbalance, cases)
    return [intensities, sizes, classes]


def cohort_sentences(
    records: Sequence[CaseFingerprint], channels: Sequence[str], regions: Sequence[ClassFrequency]
) -> Iterator[str]:
    """The imbalance of the rarest region, and a note for each channel whose background may not be 0."""
    rarest = max((one for one in regions if one.share), key=lambda one: one.to_one, default=None)
    if rarest:
        yield f"class imbalance: {rarest.imbalance} ({rarest.name}, the rarest region, to the rest of the foreground)"
    for number, name in enumerate(channels):
        doubtful = [record for record in records if record.commonest[number, 1] > BACKGROUND]
        if doubtful:
            value, share = doubtful[0].commonest[number]
            yield (
                f"note: {share:.0%} of the voxels of {name} that are not 0 in {doubtful[0].case} are {value:.4g}; so in"
                f" {len(doubtful)} of {len(records)} cases. If that is background, set it to 0: only 0 is cropped and"
                " left out of the brain."
            )


def _range(values: Sequence[float]) -> str:
    least, median, most = min(values), float(np.median(values)), max(values)
    return f"{least:.4g}" if least == most else f"{median:.4g} ({least:.4g} to {most:.4g})"
