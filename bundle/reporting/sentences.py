"""Sentences about an evaluation: warnings, findings and limits."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from bundle.analysis.region_summary import LOW, SPECK
from bundle.analysis.statistics import ENOUGH
from bundle.reporting.agreement_sentences import score_verdicts
from bundle.reporting.size_sentences import describe_lesions_found
from bundle.reporting.words import explain_nsd, format_share, join_words, metric_name, plural

ROLE_WARNINGS = {
    "training": "used for training: their scores say nothing about new patients.",
    "validation": "used to select the checkpoint or the settings: expect lower scores on new patients.",
}
PARTS = {
    "test": "test: held-out patients",
    "labelled": "labelled: every case with a label",
    "validation": "validation: the fold not used for training",
}

REGIONS = {  # what the usual short names stand for
    "WT": "whole tumour",
    "TC": "tumour core",
    "ET": "enhancing tumour",
    "NCR": "necrosis",
    "NETC": "non-enhancing tumour core",
    "SNFH": "surrounding signal change, oedema included",
    "ED": "oedema",
    "RC": "resection cavity",
    "CC": "cystic component",
}
RULES = {  # heading, and the metric that each is for
    "border": ("Boundary", "hd95"),
    "empties": ("Empty masks", "dice"),
    "connectivity": ("Connectivity of lesions", "lesions_tp"),
}


def describe_part(summary: Mapping[str, Any]) -> str:
    """Which part of the data list was evaluated."""
    if not summary["part"]:
        return "unknown: there is no evaluation.json"
    kind, _, fold = summary["part"].partition(" ")
    return f"{PARTS.get(kind, kind)} {fold}".strip()


def describe_regions(regions: Iterable[str]) -> str:
    """What the short names of regions stand for; empty if none is known."""
    return ", ".join(f"{name}: {REGIONS[name]}" for name in regions if name in REGIONS)


def metric_meanings(record: Mapping[str, Any], length: str, measured: Collection[str]) -> list[tuple[str, str]]:
    """Definitions of the measured metrics, and their common rules, as far as evaluation.json has them."""
    rules = record.get("definitions", {})
    found = [(metric_name(m, length), meaning) for m, meaning in rules.get("metrics", {}).items() if m in measured]
    found += [(name, rules[key]) for key, (name, metric) in RULES.items() if key in rules and metric in measured]
    if "lesion_found_iou" in rules and "lesions_tp" in measured:
        found.append(("Found lesion", f"has an IoU over {rules['lesion_found_iou']} with a predicted lesion"))
    if (rule := rules.get("brats2023")) and "lesionwise_dice_brats2023" in measured:
        left_out = f"{rule['dilations']} dilations; true lesions up to {rule['smallest']} mm³ left out"
        found.append(("Rule of BraTS 2023", f"{left_out}; {rule['penalty']} mm for a missed or false one"))
    return found


def role_warnings(roles: Mapping[str, Any] | None, patients: int) -> list[str]:
    """A warning for each role in training that evaluated patients had."""
    used = roles or {}
    return [
        f"{len(used[role])} of {plural(patients, 'evaluated patient')} {'was' if len(used[role]) == 1 else 'were'}"
        f" {text}"
        for role, text in ROLE_WARNINGS.items()
        if used.get(role)
    ]


def evaluation_findings(summary: Mapping[str, Any]) -> list[str]:
    """The main results in a few sentences."""
    regions = summary["regions"]
    medians = [f"{format_share(own['metrics']['dice']['median'])} for {region}" for region, own in regions.items()]
    below = [own[f"dice_below_{LOW[0]}"] for own in regions.values()]
    low = [f"{few} of {own['cases']} for {region}" for few, (region, own) in zip(below, regions.items(), strict=True)]
    others = [
        f"{format_share(own['dice_without_absent']['median'])} for {region}"
        for region, own in regions.items()
        if own["absent"] and own["dice_without_absent"]
    ]
    without = f"; without true negatives {join_words(others, most=None)}" if others else ""
    said = [
        f"The median Dice is {join_words(medians, most=None)}{without}.",
        f"Cases with a Dice below {LOW[0]}: {join_words(low, most=None) if any(below) else 'none'}.",
    ]
    said += describe_lesions_found(summary)
    if numbers := _by_region(summary, "missed", "missed_specks"):
        said.append(f"Missed completely: {numbers}.")
    if numbers := _by_region(summary, "hallucinated"):
        said.append(f"False positive (region absent): {numbers}.")
    if numbers := _by_region(summary, "missed_specks"):
        said.append(f"Specks of the label of at most {SPECK} ml were missed: {numbers}.")
    if lost := _lost(summary):
        said.append(f"{plural(lost, 'case')} could not be scored and {'counts' if lost == 1 else 'count'} as Dice 0.")
    return [*said, *score_verdicts(summary["raters"])]


def describe_reliability(region: str, curve: Mapping[str, Any]) -> str:
    """Describe a reliability curve by the bin with the largest difference."""
    begin = f"{region}, {plural(curve['patients'], 'patient')}"
    if curve["furthest"] is None:
        return f"{begin}: too few voxels in every bin."
    one = next(one for one in curve["bins"] if one["bin"] == curve["furthest"])
    said, found = format_share(one["confidence"]), format_share(one["frequency"])
    if said == found:
        return f"{begin}: well calibrated, within 0.01 in every bin."
    low, high = one["frequency_interval"] or (1, 0)
    sure = (one["confidence"] > one["frequency"]) == (one["bin"] >= 0.5)
    verdict = (
        "within its 95 % interval"
        if low <= one["confidence"] <= high
        else "over-confident"
        if sure
        else "under-confident"
    )
    return f"{begin}: largest difference at a predicted probability of {said}: observed {found}, {verdict}."


def evaluation_limits(summary: Mapping[str, Any]) -> Iterator[str]:
    """The limits of these numbers."""
    patients, cases, lost = summary["patients"], summary["cases"], _lost(summary)
    if patients < ENOUGH:
        yield (
            f"Only {plural(patients, 'patient')}: below {ENOUGH}, bootstrap intervals are too narrow, and only large"
            " differences between systems can be shown."
        )
    else:
        yield (
            f"With {patients} patients the intervals are approximate; an interval 0.01 wide needs 100 to 200 patients"
            " (El Jurdi et al. 2023)."
        )
    if summary["roles"] is None:
        yield (
            "The role of these patients in training is unknown. If they were used for training or to select the"
            " checkpoint, the scores are too high."
        )
    yield (
        "Scores can be quite different for other scanners, hospitals, treatments or tumour types; these numbers do not"
        " show by how much."
    )
    if summary["raters"]:
        yield (
            "Several raters have drawn these cases. Scores are means over them, lesions are those of all of them, and"
            " pictures show the mask of the first one. Other raters may differ more."
        )
    else:
        yield (
            "The reference is a single rater's segmentation, and experts differ: for gliomas, Menze et al. (2015) found"
            " a Dice of 0.74 to 0.85 between raters, with another protocol. Above such a number, a higher score"
            " reflects this rater's style. A second rater's masks can be scored too, and given by --reference."
        )
    if cases > patients:
        yield (
            f"{cases} cases come from {plural(patients, 'patient')}. Tables count cases. Intervals resample patients,"
            " each with all of its cases, since scans of one patient are correlated; the limits of agreement ignore"
            " this."
        )
    if lost:
        yield (
            f"{plural(lost, 'failed case')} {'counts' if lost == 1 else 'count'} as an empty prediction: Dice 0, no"
            " distance. Volumes and lesions are unknown without a mask: their tables leave"
            f" {'it' if lost == 1 else 'them'} out and are too optimistic."
        )
    if absent := _by_region(summary, "absent"):
        yield (
            f"True negatives (region absent and not predicted) count as Dice 1 and distance 0: {absent}. A table above"
            " gives Dice without them; publications differ in how they count such cases."
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
            "The comparison is between two sets of masks of the same cases. The variation between repeated trainings"
            " is not part of it."
        )


def _by_region(summary: Mapping[str, Any], note: str, but: str = "") -> str:
    """The number of cases of each region with a note, less those with another one."""
    counts = {region: own[note] - (own[but] if but else 0) for region, own in summary["regions"].items()}
    return join_words([f"{region} in {plural(count, 'case')}" for region, count in counts.items() if count], most=None)


def _lost(summary: Mapping[str, Any]) -> int:
    return len(summary["failed"]) + len(summary["missing"])
