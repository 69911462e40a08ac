"""Clicks in MONAI Label: the sessions of the scans that were clicked last, and the region that goes back.

MONAI Label (0.8.5) runs three parts of a config for each request, one request after another: `preprocessing` gets the
request, `inferer` the image and the network, and `postprocessing` the request with what the inferer returned. In a
click model they are methods of one `ClickServer`, which stays between requests (`bundle/packaging/click_model.py`).

Another promptable model needs another `make_session` alone: what it returns for a prepared case is a `Session`.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from scripts.data.loading import LoadImageChannelsd
from scripts.data.scan_checks import refusals_as_responses
from scripts.errors import InputError
from scripts.inference.click_session import Correction

ANNOTATORS = 8  # of one session, which holds masks of each; one more opens another, and clicks sent again are run again
Stamp = list[tuple[Path, int, int]]  # of each file: path, time in ns, bytes


class Session(Protocol):
    """The correction of one scan: `scripts.inference.click_session.ClickSession`, or that of another model."""

    def mask(self, region: str, annotator: str = "") -> np.ndarray:
        """The mask of a region on the scan's own grid, bool."""

    def click(self, region: str, foreground: Any = (), background: Any = (), annotator: str = "") -> Correction:
        """Correct a region by all clicks on it so far, voxels [[i, j, k], ...] of the scan."""


@dataclass
class ClickedScan:
    """A scan that was clicked.

    Attributes:
        stamp: of its files.
        case: as it was prepared.
        network: that of the session; another one after a fine-tuning.
        session: None before the first click.
        annotators: who have clicked in this session.
    """

    stamp: Stamp
    case: dict[Hashable, Any]
    network: Any = None
    session: Session | None = None
    annotators: set[str] = field(default_factory=set)


class ClickServer:
    """Answers clicks with the region that they correct, as a mask of 0 and 1 on the scan's own grid.

    A request has `image`, `label` (the region, in any case), `foreground` and `background` (voxels of the scan's file,
    [[i, j, k], ...], all of them each time) and `client_id`, whose clicks they are. The `params` of its answer have
    `notes`, a sentence for each click that the network did not follow, `windows`, how many the network was run on, and
    `kept`, whether the session of an earlier click was at hand. A wrong request is answered by 422 and a sentence.

    Args:
        prepare: makes the case of {"image": file or folder}; its first transform is a `LoadImageChannelsd`.
        make_session: called with the case, and with `network` and `device`, gives a `Session`.
        regions: names.
        most: scans whose prepared image and session are kept, while their files stay the same; those clicked last.

    Attributes:
        scans: by the file or folder that was requested, the last one at the end.
    """

    def __init__(
        self, prepare: Compose, make_session: Callable[..., Session], regions: Iterable[str], most: int = 2
    ) -> None:
        (self.loader,) = (part for part in prepare.transforms if isinstance(part, LoadImageChannelsd))
        self.prepare, self.make_session, self.most = prepare, make_session, most
        self.regions = {name.lower(): name for name in regions}  # Slicer sends lower case
        self.scans: OrderedDict[str, ClickedScan] = OrderedDict()
        self.clicked: tuple[ClickedScan, dict[str, Any]] | None = None  # by the request that is answered
        self.answer: tuple[Correction, bool] | None = None  # and whether the session was kept

    def read_request(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Preprocessing: `image` becomes the prepared one."""
        with refusals_as_responses():
            clicks = {name: data.get(name) for name in ("foreground", "background")}
            region = self._find_region(data.get("label"))
            scan = self._find_scan(str(data["image"]))
            self.clicked = scan, {"region": region, **clicks, "annotator": str(data.get("client_id") or "")}
        return {**scan.case, **data, "image": scan.case["image"]}

    def click(self, inputs: torch.Tensor, network: Callable[..., Any]) -> torch.Tensor:
        """Inferer: the corrected region [1, 1, ...] on the scan's grid; `inputs` is the prepared image."""
        assert self.clicked is not None
        scan, clicks = self.clicked
        with refusals_as_responses():
            kept = scan.session is not None and scan.network is network
            kept = kept and len(scan.annotators | {clicks["annotator"]}) <= ANNOTATORS
            if not kept:
                scan.session = self.make_session(scan.case, network=network, device=inputs.device)
                scan.network, scan.annotators = network, set()
            scan.annotators.add(clicks["annotator"])
            assert scan.session is not None
            correction = scan.session.click(**clicks)
        self.answer = correction, kept
        return torch.from_numpy(correction.mask)[None, None]

    def write_answer(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Postprocessing: `pred` becomes what MONAI Label writes, and `result` what it sends next to it."""
        assert self.answer is not None
        correction, kept = self.answer
        found = {"notes": correction.notes, "windows": correction.windows, "kept": kept}
        return {**data, "pred": MetaTensor(data["pred"].byte()), "result": {**data.get("result", {}), **found}}

    def _find_region(self, label: Any) -> str:
        if (region := self.regions.get(str(label).lower())) is None:
            raise InputError(f"label is {label!r}: expected the region to click on, one of {', '.join(self.regions)}.")
        return region

    def _find_scan(self, named: str) -> ClickedScan:
        stamp = _stamp(self.loader.find_files(named))
        scan = self.scans.pop(named, None)
        if scan is None or scan.stamp != stamp:
            scan = ClickedScan(stamp, dict(self.prepare({"image": named})))
        self.scans[named] = scan
        while len(self.scans) > self.most:
            self.scans.popitem(last=False)
        return scan


def _stamp(files: Sequence[Path]) -> Stamp:
    there = [(file, file.stat()) for file in files if file.exists()]
    return [(file, status.st_mtime_ns, status.st_size) for file, status in there]
