"""Which series of a study is which channel: scored rules with their evidence, and a question where two would do.

The rules exclude what is no anatomical image of the whole head first (diffusion, angiography, reformats, localisers),
then tell FLAIR, T2 and T1 by sequence parameters and descriptions. Contrast needs two kinds of evidence of three: the
agent's tag, which may be absent or copied to series before the injection, the description, and the order in time.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bundle.dicom.stacks import SliceStack
from scripts.errors import InputError

KINDS = {  # names of channels, without signs and in small letters, by what they mean here
    "T1": ("t1", "t1n", "t1w", "t1pre"),
    "T1c": ("t1c", "t1ce", "t1gd", "t1post", "t1km"),
    "T2": ("t2", "t2w"),
    "FLAIR": ("flair", "t2f", "t2flair"),
}
EXCLUDED = {
    "diffusion": r"\b(dwi|adc|trace|diff\w*|dti|ep2d|fa|colfa)\b",
    "susceptibility": r"\b(swi|minip|mip|phase|pha|hemo)\b|t2\*|t2star",
    "angiography": r"\b(tof|mra|angio\w*|pc3d)\b",
    "perfusion": r"\b(perf\w*|dsc|dce|asl|cbv|cbf|mtt|ttp)\b",
    "a reformat": r"\b(mpr|reformat\w*|curved)\b",
    "a subtraction": r"\b(sub|subtract\w*)\b",
    "a localiser": r"\b(loc|locali[sz]er|scout|survey|aahead\w*|3.?plane\w*)\b",
    "spectroscopy or a map": r"\b(svs|csi|map|t1map|b0|b1|field)\b",
}
FLAIR_WORDS, T1_WORDS = r"flair|dark.?fluid|tirm", r"\bt1|mprage|mp.?rage|spgr|bravo|\btfl|mdeft|\bse1"
CONTRAST_WORDS = r"\+ ?c\b|\bc\+|\+gd|\bgd\b|\bgad\w*|contrast|\bpost\b|\bce\b|\bkm\b|t1c\b|t1ce|t1gd|enhanced"
NATIVE_WORDS = r"\bpre\b|non.?con\w*|nativ\w*|without|\bw ?o\b|\bno (?:con\w*|gad\w*|gd\b|ce\b|km\b)|\bunenhanced|ohne"
FEWEST_SLICES = 10
CERTAIN = 2  # points of contrast, of three


@dataclass
class Recognised:
    """What a stack is: the kinds that it may be, with the evidence; none, and the reason, if it is excluded."""

    stack: SliceStack
    kinds: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)


def choose_channels(
    stacks: Sequence[SliceStack], channels: Sequence[str], chosen: Mapping[str, str]
) -> dict[str, Recognised]:
    """The stack of each channel.

    Args:
        stacks: of one study.
        channels: names of the network's channels.
        chosen: channel to the name of a series, by the user.

    Raises:
        InputError: a channel has no candidate, or several; the sentence lists them.
    """
    found = recognise_stacks(stacks)
    by_channel = {}
    for channel in channels:
        if channel in chosen:
            own = [one for one in found if one.stack.name == chosen[channel]]
            if not own:
                names = ", ".join(one.stack.name for one in found)
                raise InputError(f"--channels gives {channel} series {chosen[channel]}: the study has {names}.")
            by_channel[channel] = Recognised(own[0].stack, [channel], ["chosen by --channels"])
            continue
        kind = channel_kind(channel)
        taken = {chosen[other] for other in channels if other in chosen}
        own = [one for one in found if kind in one.kinds and one.stack.name not in taken]
        if len(own) != 1 or own[0].kinds != [kind]:  # also where it may be something else
            raise InputError(_question(channel, own, found))
        by_channel[channel] = own[0]
    names = [one.stack.name for one in by_channel.values()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        both = " and ".join(channel for channel, one in by_channel.items() if one.stack.name == twice)
        raise InputError(f"series {twice} would be {both}: say which series is which by --channels.")
    return by_channel


def channel_kind(channel: str) -> str | None:
    """Which of `KINDS` a channel is, by its name."""
    return next((kind for kind, names in KINDS.items() if re.sub(r"\W|_", "", channel.lower()) in names), None)


def recognise_stacks(stacks: Sequence[SliceStack]) -> list[Recognised]:
    """What each stack of a study is."""
    found = [_recognise(stack) for stack in stacks]
    t1 = [one for one in found if one.kinds == ["T1"]]
    times = {id(one): _start(one.stack) for one in t1}
    for one in t1:
        others = [times[id(other)] for other in t1 if other is not one and times[id(other)] is not None]
        one.kinds = _contrast(one, times[id(one)], [time for time in others if time is not None])
    return found


def _recognise(stack: SliceStack) -> Recognised:
    text = _text(stack)
    reasons = [what for what, words in EXCLUDED.items() if re.search(words, text)]
    image_type = {str(word).upper() for word in stack.find("ImageType") or ()}
    reasons += [what for what in ("MPR", "LOCALIZER", "ADC", "SUBTRACTION", "MIP") if what in image_type]
    if float(stack.find("DiffusionBValue") or 0) > 0:
        reasons.append("diffusion")
    if stack.slices < FEWEST_SLICES or stack.orientations > 1:
        reasons.append(f"{stack.slices} slices, {stack.orientations} orientations")
    if reasons:
        return Recognised(stack, [], [f"excluded: {reasons[0]}"])
    tr, te, ti = (_number(stack.find(*names)) for names in PARAMETERS)
    sequence = " ".join(map(str, _several(stack.find("ScanningSequence")))).upper()
    inverted = "IR" in sequence or stack.find("InversionRecovery") == "YES" or bool(ti)
    numbers = [f"{name} {value:g} ms" for name, value in (("TR", tr), ("TE", te), ("TI", ti)) if value]
    points = {
        "FLAIR": 3 * bool(ti and ti > 1550 and tr and tr > 3500) + 2 * bool(re.search(FLAIR_WORDS, text)),
        "T2": 3 * bool(te and te > 60 and tr and tr > 2000 and "GR" not in sequence and not inverted)
        + 2 * bool(re.search(r"\bt2", text) and not re.search(FLAIR_WORDS, text)),
        "T1": 3 * bool(te and te < 30 and tr and (tr < 1200 or (ti and ti < 1550)))
        + 2 * bool(re.search(T1_WORDS, text)),
    }
    best = max(points.values())
    kinds = [kind for kind, own in points.items() if own == best] if best else []
    return Recognised(stack, kinds, [*numbers, f'"{text}"'] if text else numbers)


def _contrast(one: Recognised, time: float | None, others: Sequence[float]) -> list[str]:
    """T1 or T1c, or both where it is not certain."""
    points, text = 0, _text(one.stack)
    if one.stack.find("ContrastBolusAgent", "ContrastBolusAgentSequence"):
        points += 1
        one.evidence.append("contrast agent in the header")
    if re.search(NATIVE_WORDS, text):
        points -= 1
        one.evidence.append("description of a scan without contrast")
    elif re.search(CONTRAST_WORDS, text):
        points += 1
        one.evidence.append("description of a scan with contrast")
    if time is not None and others:
        later = time > min(others)
        points += 1 if later else -1
        one.evidence.append("acquired after another T1" if later else "acquired before the other T1")
    return ["T1c"] if points >= CERTAIN else ["T1"] if points <= 0 else ["T1", "T1c"]


PARAMETERS = (("RepetitionTime",), ("EchoTime", "EffectiveEchoTime"), ("InversionTime", "InversionTimes"))


def _question(channel: str, own: Sequence[Recognised], found: Sequence[Recognised]) -> str:
    if own:
        listed = "; ".join(describe_choice(one) for one in own)
        return f'{channel} could be {listed}: say which by --channels "{channel}=SERIES".'
    listed = "; ".join(describe_choice(one) for one in found)
    return f'no series is recognised as {channel}: {listed}; say which by --channels "{channel}=SERIES".'


def describe_choice(one: Recognised) -> str:
    """The series with its evidence, without anything that names the patient."""
    return f"series {one.stack.name} ({', '.join([f'{one.stack.slices} slices', *one.evidence])})"


def _text(stack: SliceStack) -> str:
    """The description of a series in small letters, without numbers that could be dates or ids."""
    words = [str(stack.find(name) or "") for name in ("SeriesDescription", "ProtocolName")]
    joined = re.sub(r"[_/\-]", " ", " ".join(dict.fromkeys(words)).lower())
    own = {part.lower() for part in re.split(r"\W+", f"{stack.header.get('PatientName', '')}") if len(part) > 2}
    own.add(str(stack.header.get("PatientID", "")).lower())
    kept = [word for word in joined.split() if word not in own and not re.search(r"\d{4}", word)]
    return " ".join(kept)


def _start(stack: SliceStack) -> float | None:
    """When a stack was acquired, as a number that grows with time within a study."""
    for keyword in ("AcquisitionDateTime", "AcquisitionTime", "SeriesTime", "ContentTime"):
        if (value := str(stack.find(keyword) or "")) and (digits := re.match(r"[\d.]+", value)):
            text = digits[0]
            return float(text[8:] if keyword == "AcquisitionDateTime" and len(text) > 8 else text)
    return None


def _number(value: object) -> float | None:
    value = _several(value)[0] if _several(value) else None
    return None if value is None else float(str(value))


def _several(value: object) -> list:
    if value is None:
        return []
    return [value] if isinstance(value, str | int | float) or not hasattr(value, "__iter__") else [*value]
