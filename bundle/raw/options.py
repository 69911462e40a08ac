"""How raw scans are prepared: where the brain mask is from, and what pictures may show."""

from pathlib import Path
from typing import NamedTuple

from bundle.raw.brain_mask import METHODS
from scripts.errors import InputError


class RawOptions(NamedTuple):
    """How raw scans are prepared.

    Attributes:
        method: of the brain mask, one of `METHODS`; unused with a file.
        mask: the file of the brain mask; `{case}` in it stands for the name of the case.
        identify: draw whole heads in the pictures of the steps.
    """

    method: str = "template"
    mask: str | None = None
    identify: bool = False

    def require(self) -> None:
        """Raise `InputError` unless what makes the brain mask is there."""
        if self.mask is None:
            METHODS[self.method].require()
        elif "{case}" not in self.mask and not Path(self.mask).is_file():
            raise InputError(f"--brain_mask {self.mask} does not exist: give the file of the patient's brain mask.")

    def mask_of(self, case: str) -> Path | None:
        """The file of the brain mask of a case.

        Raises:
            InputError: there is none.
        """
        if self.mask is None:
            return None
        path = Path(self.mask.replace("{case}", case))
        if not path.is_file():
            raise InputError(f"the brain mask {path} of case {case} does not exist: make it, or change --brain_mask.")
        return path
