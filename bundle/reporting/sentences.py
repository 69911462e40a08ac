"""Sentences about an evaluation: warnings, findings, and the limits of its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from bundle.analysis.region_summary import LOW
from bundle.analysis.statistics import ENOUGH
from bundle.reporting.words import explain_nsd, format_share, join_words, metric_name, plural

ROLE_WARNINGS = {
    "training": "were used for training: their scores say how well it remembers, and nothing about new patients.",
    "validation": "were used to select the checkpoint or the settings: their scores are higher than those of new"
    " patients will be.",
}
PARTS = {
    "test": "test: the patients set aside",
    "labelled": "labelled: every case with a label",
    "validation": "validation: the fold that training leaves out",
}

RULES = {"border": "Border", "empties": "Empty masks", "connectivity": "Voxels of a lesion touch"}


def describe_part(summary: Mapping[str, Any]) -> str:
    """Which part of the data list was evaluated."""
    if not summary["part"]:
        return "not known: there is no evaluation.json"
    kind, _, fold = summary["part"].partition(" ")
    return f"{PARTS.get(kind, kind)} {fold}".strip()


def metric_meanings(scored: Mapping[str, Any], length: str) -> list[tuple[str, str]]:
    """What each number means, as far as evaluation.json says."""
    told = scored.get("definitions", {})
    said = [(metric_name(metric, length), meaning) for metric, meaning in told.get("metrics", {}).items()]
    said += [(heading, told[key]) for key, heading in RULES.items() if key in told]
    if "lesion_found_iou" in told:
        said.append(("A lesion is found", f"where a predicted one has an IoU over {told['lesion_found_iou']} with it"))
    if rule := told.get("brats2023"):
        left_out = f"{rule['dilations']} dilations; true lesions up to {rule['smallest']} mm³ left out"
        said.append(("Rule of BraTS 2023", f"{left_out}; {rule['penalty']} mm for a missed or false one"))
    return said


def role_warnings(roles: Mapping[str, Any] | None, patients: int) -> list[str]:
    """A sentence for each part that evaluated patients had in making the system that is evaluated."""
    used = roles or {}
    return [
        f"{len(used[role])} of {plural(patients, 'evaluated patient')} {text}"
        for role, text in ROLE_WARNINGS.items()
        if used.get(role)
    ]


def evaluation_findings(summary: Mapping[str, Any]) -> list[str]:
    """The page in a few sentences."""
    regions = summary["regions"]
    medians = [f"{format_share(own['metrics']['dice']['median'])} for {region}" for region, own in regions.items()]
    below = [own[f"dice_below_{LOW[0]}"] for own in regions.values()]
    low = [f"{few} of {own['cases']} for {region}" for few, (region, own) in zip(below, regions.items(), strict=True)]
    others = [
        f"{format_share(own['dice_without_absent']['median'])} for {region}"
        for region, own in regions.items()
        if own["absent"] and own["dice_without_absent"]
    ]
    without = f"; without cases that are rightly empty {join_words(others, most=None)}" if others else ""
    said = [
        f"The median Dice is {join_words(medians, most=None)}{without}.",
        f"Cases with a Dice below {LOW[0]}: {join_words(low, most=None) if any(below) else 'none'}.",
    ]
    for note, text in (("missed", "Missed altogether"), ("hallucinated", "Drawn where there is none")):
        if numbers := _by_region(summary, note):
            said.append(f"{text}: {numbers}.")
    if lost := _lost(summary):
        said.append(f"{plural(lost, 'case')} could not be scored and {'counts' if lost == 1 else 'count'} as Dice 0.")
    return said


def describe_reliability(region: str, curve: Mapping[str, Any]) -> str:
    """What a reliability curve shows: the tenth of probability in which it is furthest off."""
    begin = f"{region}, {plural(curve['patients'], 'patient')}"
    if curve["furthest"] is None:
        return f"{begin}: too few voxels in any tenth to tell."
    one = next(one for one in curve["bins"] if one["bin"] == curve["furthest"])
    said, found = format_share(one["confidence"]), format_share(one["frequency"])
    if said == found:
        return f"{begin}: what it says comes true, to a hundredth in every tenth."
    low, high = one["frequency_interval"] or (1, 0)
    sure = (one["confidence"] > one["frequency"]) == (one["bin"] >= 0.5)
    verdict = (
        "which may be chance" if low <= one["confidence"] <= high else "over-confident" if sure else "under-confident"
    )
    return f"{begin}: furthest off where it says {said}: {found} are {region}, {verdict}."


def evaluation_limits(summary: Mapping[str, Any]) -> Iterator[str]:
    """What these numbers cannot say."""
    patients, cases, lost = summary["patients"], summary["cases"], _lost(summary)
    if patients < ENOUGH:
        yield (
            f"{plural(patients, 'patient')} {'is' if patients == 1 else 'are'} few. Below {ENOUGH}, bootstrap intervals"
            " are too narrow, and two systems must differ much before the difference can be told from chance."
        )
    else:
        yield (
            f"{patients} patients give intervals that can be trusted roughly; one that is a hundredth wide takes 100 to"
            " 200 of them (El Jurdi et al. 2023)."
        )
    if summary["roles"] is None:
        yield (
            "It is not written down whether these patients took part in training or in selecting the checkpoint."
            " If they did, the scores are too high."
        )
    yield (
        "Other scanners, hospitals, treatments or kinds of tumour can give quite different scores, and nothing here"
        " tells how different."
    )
    yield (
        "The truth is what one reading drew, and experts differ too: for gliomas, Menze et al. (2015) found a Dice of"
        " 0.74 to 0.85 between human raters, by another protocol. Above such a number, a higher score means more of"
        " this reading's habits. A second rater's masks can be scored as well, and given as the reference."
    )
    if cases > patients:
        yield (
            f"{cases} cases come from {plural(patients, 'patient')}. Tables count cases. Intervals draw patients, each"
            " with all of its cases, since scans of one patient are alike; the limits of agreement do not allow for"
            " that."
        )
    if lost:
        yield (
            f"{plural(lost, 'failed case')} {'counts' if lost == 1 else 'count'} as an empty prediction: Dice 0, no"
            " distance. Volumes and lesions are not known without a mask, so the parts about these leave"
            f" {'it' if lost == 1 else 'them'} out and look better than they should."
        )
    if absent := _by_region(summary, "absent"):
        yield (
            f"What is neither there nor drawn counts as Dice 1 and distance 0: {absent}. A table"
            " above gives Dice without these cases; published numbers differ by how such cases count."
        )
    metrics = {metric for own in summary["regions"].values() for metric in own["metrics"]}
    if "nsd_2mm" in metrics:
        yield explain_nsd(summary["units"]["length"])
    if "lesionwise_dice_brats2023" in metrics:
        yield (
            "Lesion-wise scores follow the rule of BraTS 2023; the tools of other years give other numbers for the same"
            " masks."
        )
    if summary["reference"]:
        yield (
            "The comparison is of two sets of masks on the same cases. Training either system once more would give"
            " other masks, and the test does not know by how much."
        )


def _by_region(summary: Mapping[str, Any], note: str) -> str:
    found = [f"{region} in {plural(own[note], 'case')}" for region, own in summary["regions"].items() if own[note]]
    return join_words(found, most=None)


def _lost(summary: Mapping[str, Any]) -> int:
    return len(summary["failed"]) + len(summary["missing"])
