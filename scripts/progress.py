"""Progress bars, on a terminal alone: in a file, such as the log of a job, each would be one endless line."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(items: Iterable[Any] | None = None, show: bool = True, leave: bool = False, **options: Any) -> tqdm:
    """The bar of tqdm over `items`, on stderr, where that is a terminal.

    Args:
        items: what is iterated over; None: the caller calls `update`.
        show: False, for example, in all processes but the first.
        leave: whether the finished bar stays on the screen.
        options: `desc`, `unit` and `total` of tqdm.
    """
    return tqdm(items, disable=None if show else True, leave=leave, **options)
