"""Places in the brain in words."""

from collections.abc import Sequence

SIDE = ("on the left", "in the midline", "on the right")
DEPTH = ("at the back", "half-way back", "at the front")
HEIGHT = ("low", "at mid-height", "high")


def name_place(place: Sequence[int]) -> str:
    """A third of the brain along each axis in words: `on the left, at the front, high`."""
    x, y, z = place
    return f"{SIDE[x]}, {DEPTH[y]}, {HEIGHT[z]}"
