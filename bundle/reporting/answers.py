"""Writing of the answer of each scan: answer.json for programs, answer.html for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bundle.reporting.answer_page import write_answer_page
from scripts.data.check_results import OK
from scripts.data.images import read_image
from scripts.data.scan_checks import SKULL
from scripts.errors import InputError
from scripts.files import remove_leftovers, write_json
from scripts.inference.answer import ANSWER_VERSION, measure_answer, read_channels_of, refuse_answer


class AnswerWriter:
    """Writes OUT/<case>/answer.json and answer.html from what the process that segments replies.

    Args:
        out: the folder with the masks.
        network: of which the answers speak (`bundle.packaging.provenance`).
        identify: show scans that have more than the brain.
        settings: of the network, once it is loaded.
    """

    def __init__(
        self, out: Path, network: Mapping[str, Any], identify: bool = False, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.out, self.network, self.identify = out, network, identify
        self.settings = settings or {}

    def write(self, reply: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of one case, written unless it is there already; one of another mask is made again.

        Raises:
            InputError: a file cannot be written.
        """
        folder = self.out / reply["case"]
        if reply.get("kept") and (known := self._read_finished(folder / "answer.json", reply)):
            return known
        remove_leftovers(folder)
        stripped = any(check["name"] == SKULL and check["status"] == OK for check in reply["checks"])
        drawn = stripped or self.identify
        if "refused" in reply:
            answer = {**refuse_answer(reply["case"], reply["refused"], reply["checks"]), "network": dict(self.network)}
            answer |= _preparation(reply)
            channels, affine = self._read_refused(reply) if drawn else ({}, None)
            write_answer_page(folder / "answer.html", answer, channels, None, drawn, affine)
            write_json(folder / "answer.json", answer)
            return answer
        name, sha256 = next(iter(reply["masks"].items()))
        mask = read_image(self.out / name)
        scans = read_channels_of(reply["image"], self.settings)
        answer = measure_answer(reply["case"], mask, scans[0], reply["checks"], self.settings)
        answer |= {"mask": f"../{name}", "mask_sha256": sha256, "network": dict(self.network)}
        answer["predicted_dice"] = reply.get("predicted_dice", {})
        answer |= _preparation(reply)
        channels = dict(zip(self.settings["channels"], scans, strict=True))
        write_answer_page(folder / "answer.html", answer, channels, mask.voxels, drawn, mask.affine)
        write_json(folder / "answer.json", answer)  # last: a page without it is made again
        return answer

    def _read_refused(self, reply: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """The channels and the affine of a refused scan; nothing where its files cannot be read or do not fit."""
        try:
            image = reply.get("image") or []
            affine = read_image(image if isinstance(image, str) else image[0], "image").affine
            channels = dict(zip(self.settings["channels"], read_channels_of(image, self.settings), strict=True))
        except (InputError, IndexError, ValueError):
            return {}, None
        one_grid = len({voxels.shape for voxels in channels.values()}) == 1
        return (channels, affine) if one_grid else ({}, None)

    def _read_finished(self, path: Path, reply: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer in a file, if it is of this version, this network and these masks."""
        try:
            answer = json.loads(path.read_text(encoding="utf-8"))
            same = answer["answer_version"] == ANSWER_VERSION and answer["network"] == self.network
            same &= answer.get("predicted_dice") == reply.get("predicted_dice", {})
            return answer if same and answer["mask_sha256"] in reply["masks"].values() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _preparation(reply: Mapping[str, Any]) -> dict[str, Any]:
    """How raw scans were prepared, where they were."""
    return {"preparation": reply["preparation"]} if "preparation" in reply else {}
