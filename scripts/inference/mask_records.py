"""Records of finished masks: the weights, the images and the settings that each was made of, and the hash of its file.

They are in `.records/<case>.json` of the folder of masks. A mask without a matching record is not finished.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.data import pictures
from scripts.data.datalist import file_hash
from scripts.files import remove_leftovers, write_json

RECORDS = ".records"


class MaskRecords:
    """The records of a folder of masks.

    Args:
        output_dir: the folder.
        checkpoints: the file of the weights; several for an ensemble.
        settings: all that decides over a mask, such as network, preprocessing and postprocessing.
    """

    def __init__(
        self, output_dir: str | os.PathLike, checkpoints: Sequence[str | os.PathLike], settings: Mapping[str, Any]
    ) -> None:
        self.output_dir, self.checkpoints = Path(output_dir), [Path(checkpoint) for checkpoint in checkpoints]
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self.hashes: dict[tuple[Path, int, int], str] = {}  # of the files, by size and time; pages share one
        self.expected: dict[str, list[tuple[int, int]]] = {}  # by case, its files before they were read

    def remove_leftovers(self) -> None:
        """Remove what killed processes left unfinished in the folder."""
        for folder in (self.output_dir, self.output_dir / "probabilities", self.output_dir / RECORDS):
            remove_leftovers(folder)

    def expect(self, case: str, image: str | Sequence[str]) -> None:
        """Remember the files of a case that will be segmented: one that is replaced meanwhile is not finished."""
        self.expected[case] = _stamps(image)

    def write(
        self,
        case: str,
        image: str | Sequence[str],
        files: Iterable[Path],
        checks: Sequence[Mapping[str, Any]] = (),
        numbers: Mapping[str, Mapping[str, float]] | None = None,
    ) -> dict[str, Any]:
        """Record that a case is finished, and return what `read` will.

        Args:
            case: its name.
            image: its files.
            files: its mask, and its probabilities if there are any.
            checks: what the checks of its scan found (`scripts.data.scan_checks`).
            numbers: of its mask (`scripts.inference.mask_quality`); None: not measured.
        """
        masks = {file.relative_to(self.output_dir).as_posix(): file_hash(file) for file in files}
        found = {"masks": masks, "checks": list(checks), "numbers": numbers}
        origin = self._origin(case, image)
        if self.expected.get(case, now := _stamps(image)) != now:
            origin["images"] = []  # of files that were replaced while they were segmented
        write_json(self._path(case), {**origin, **found})
        return {"case": case, **found}

    def forget(self, case: str, masks: Iterable[Path]) -> None:
        """Remove the masks of a case, which are not finished, its probabilities and its record.

        Otherwise they would stay, and be scored or averaged, where the case is refused this time.
        """
        for file in (*masks, self.output_dir / "probabilities" / f"{case}.nii.gz", self._path(case)):
            file.unlink(missing_ok=True)

    def read(self, case: str) -> dict[str, Any]:
        """The `case`, the sha256 of its `masks` by file, the `checks` and the `numbers` of a case that is finished."""
        record = json.loads(self._path(case).read_text(encoding="utf-8"))
        found = {"checks": record.get("checks", []), "numbers": record.get("numbers")}
        return {"case": case, "masks": record["masks"], **found}

    def read_numbers(self) -> dict[str, Any]:
        """The numbers of the masks of all cases in the folder that have them, by case."""
        files = sorted((self.output_dir / RECORDS).glob("*.json"))
        records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        return {record["case"]: record["numbers"] for record in records if record.get("numbers") is not None}

    def is_finished(self, case: str, image: str | Sequence[str]) -> bool:
        """Whether the masks of a case are there, unchanged, and were made of these weights, images and settings."""
        try:
            record = json.loads(self._path(case).read_text(encoding="utf-8"))
            masks = dict(record.pop("masks"))
            for name in ("checks", "numbers"):  # which decide over nothing
                record.pop(name, None)
            unchanged = all(file_hash(self.output_dir / name) == sha256 for name, sha256 in masks.items())
            return bool(masks) and unchanged and record == self._origin(case, image)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # a file is missing, the record damaged
            return False

    def _path(self, case: str) -> Path:
        return self.output_dir / RECORDS / f"{case.replace('/', '_')}.json"

    def _origin(self, case: str, image: str | Sequence[str]) -> dict[str, Any]:
        names = [image] if isinstance(image, str) else [*image]
        weights = [self._hash(file) if file.is_file() else None for file in self.checkpoints]
        return {
            "case": case,
            "weights": weights if len(weights) > 1 else weights[0],
            "images": [self._hash(pictures.file_of_page(name)) for name in names],
            "pages": [pictures.file_and_page(name)[1] for name in names],
            "settings": self.settings,
        }

    def _hash(self, file: Path) -> str:
        known = file.stat()
        key = file, known.st_size, known.st_mtime_ns
        if key not in self.hashes:
            self.hashes[key] = file_hash(file)
        return self.hashes[key]


def _stamps(image: str | Sequence[str]) -> list[tuple[int, int]]:
    """Size and time of each file of an image."""
    names = [image] if isinstance(image, str) else image
    stats = [file.stat() for file in map(pictures.file_of_page, names) if file.is_file()]
    return [(known.st_size, known.st_mtime_ns) for known in stats]
