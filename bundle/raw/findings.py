"""What is said of the steps from raw scans to prepared ones: checks with their sentences, numbers for answer.json."""

from collections.abc import Mapping
from typing import Any

from bundle.raw.registration import Registration
from scripts.data.alignment_checks import ALIGNMENT_LIMITS
from scripts.data.check_results import NOTE, OK, ScanCheck
from scripts.errors import InputError

SEEN, LEAST_SEEN = 0.98, 0.5  # of the brain, in the field of view of a channel: less is noted, refused


def describe_gains(gains: Mapping[str, float]) -> ScanCheck:
    """The check of the bias field, from how far the gain of each channel varied."""
    listed = ", ".join(f"{gain:.2f} ({name})" for name, gain in gains.items())
    text = f"Removed by N4; the gain varied in the head by a factor of {listed}."
    return ScanCheck("bias field", OK, text, round(max(gains.values()), 4))


def describe_places(places: Mapping[str, Registration], reference: str, why: str) -> ScanCheck:
    """The check of the co-registration; `why` says why the others lie on this reference."""
    parts = [
        f"{name} moved by {place.moved_mm:.1f} mm and {place.turned_degrees:.1f} degrees, mutual information"
        f" {place.before:.2f} to {place.after:.2f}"
        for name, place in places.items()
    ]
    sentence = f"All channels lie on {reference} ({why})"
    overlap = min((place.overlap for place in places.values()), default=None)
    limit = None if overlap is None else ALIGNMENT_LIMITS["head"][0]
    overlap = None if overlap is None else round(overlap, 4)
    return ScanCheck("co-registration", OK, f"{'; '.join([sentence, *parts])}.", overlap, limit)


def check_views(seen: Mapping[str, float]) -> ScanCheck:
    """The check of the field of view of each channel, from the share of the brain that it shows.

    Raises:
        InputError: a channel shows less than half of it.
    """
    least = min(seen, key=lambda name: seen[name])
    if seen[least] < LEAST_SEEN:
        raise InputError(
            f"channel {least} shows {seen[least]:.0%} of the brain, less than {LEAST_SEEN:.0%}: give a scan of the"
            " whole brain."
        )
    partly = [f"{name} {share:.0%}" for name, share in seen.items() if share < SEEN]
    text = f"Of the brain a channel shows {', '.join(partly)} alone." if partly else "Each channel shows the brain."
    return ScanCheck("field of view", NOTE if partly else OK, text, round(seen[least], 4), SEEN)


def list_numbers(place: Registration) -> dict[str, Any]:
    """What answer.json says of the registration of a channel."""
    return {
        "moved_mm": round(place.moved_mm, 2),
        "turned_degrees": round(place.turned_degrees, 2),
        "information": [round(place.before, 4), round(place.after, 4)],
        "head_overlap": round(place.overlap, 4),
    }
