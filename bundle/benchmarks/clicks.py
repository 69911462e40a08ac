"""Dice and NSD after each click of a simulated annotator, and the seconds of a click."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from monai.bundle import ConfigParser

from bundle.benchmarks.timing import time_call
from scripts.data.datalist import entry_files, file_hash
from scripts.data.images import read_image
from scripts.errors import InputError
from scripts.files import read_mapping, write_json
from scripts.inference.click_server import Session
from scripts.inference.click_session import ClickSession
from scripts.inference.promptable.channel import read_channel
from scripts.inference.promptable.models import open_scan, require_promptable
from scripts.inference.promptable.session import PromptSession
from scripts.network.weights import find_weights
from scripts.progress import progress_bar
from scripts.scoring.metrics import measure_region
from scripts.training.click_simulation import find_next_click

METRICS = ("dice", "nsd_2mm")
PARTS = ("network", "inferer", "preprocessing", "region_decision")


class ClickModel(NamedTuple):
    """A model that takes clicks.

    Attributes:
        open_session: of an entry of the data list, with its files as absolute paths.
        identity: its weights and settings; a case is measured again where it differs.
        device: for timing.
    """

    open_session: Callable[[Mapping[str, Any]], Session]
    identity: str
    device: str


def read_model(files: Sequence[str], run: Path, device: str) -> ClickModel:
    """The network of a run.

    Args:
        files: configs/inference.yaml and the settings of the run.
        run: its folder.
        device: to run it on.

    Raises:
        InputError: the run takes no clicks, or its weights are missing.
    """
    config = ConfigParser()
    config.read_config(list(files))
    config.update({"device": device, "check_scans": False, "run_dir": str(run)})  # `prepare` has checked the scans
    if "click_channels" not in str(config.get("window_channels")):
        raise InputError(f"{run} takes no clicks: give a run that was trained with the recipe clicks.")
    weights = find_weights("", config.get("checkpoint_sha256"), run)
    config.parse()
    network, inferer, preprocessing, decision = (config.get_parsed_content(name) for name in PARTS)

    def open_session(entry: Mapping[str, Any]) -> ClickSession:
        case = preprocessing({"image": entry["image"], "case": entry["case"]})
        return ClickSession(case, network, inferer, preprocessing, decision, device)

    return ClickModel(open_session, file_hash(weights), device)


def read_promptable(
    name: str, weights: Path | None, channel: str | None, channels: Sequence[str], regions: Sequence[str], device: str
) -> ClickModel:
    """A public promptable model, whose masks begin empty.

    Args:
        name: of `scripts.inference.promptable.models.MODELS`.
        weights: their file or folder; None: the model's library fetches them.
        channel: that it sees, of `channels`.
        channels: of the data list.
        regions: to click on.
        device: to run it on.

    Raises:
        InputError: there is no such channel, or see `scripts.inference.promptable.models`.
    """
    model = require_promptable(name)
    if channel not in channels:
        raise InputError(f"--channel is {channel}: expected the one that {name} sees, of {', '.join(channels)}.")
    print(f"terms: {model.licence}")
    network = model.load(weights, device)

    def open_session(entry: Mapping[str, Any]) -> PromptSession:
        scan = read_channel(entry["image"], channel, channels)
        return PromptSession(open_scan(model, network, scan.voxels, scan.affine), scan.voxels.shape, regions)

    return ClickModel(open_session, f"{name} {channel} {weights and weights.resolve()}", device)


def measure_clicks(
    model: ClickModel,
    entries: Sequence[Mapping[str, Any]],
    regions: Mapping[str, Sequence[int]],
    folder: Path,
    clicks: int = 10,
    ignore: int | None = None,
) -> pd.DataFrame:
    """Click each region of each case on its largest error, click after click, as in training.

    Each region has an annotator of its own, so that clicks on others do not change it.

    A case that has been measured with the same model is read from `folder`; each one is written when it is finished.

    Args:
        model: what is clicked.
        entries: of the data list, with labels.
        regions: name to label values.
        folder: of the results of single cases.
        clicks: on each region.
        ignore: label value of voxels that are neither clicked nor scored.

    Returns:
        a row per case, region and number of clicks, from 0: `case`, `patient`, `region`, `clicks`, `METRICS`,
        `seconds` (of the last click; of 0 clicks: of the automatic masks of all regions; NaN where no error is left),
        and `followed`, the share of the clicks so far whose voxel the model itself has as asked for.
    """
    rows = []
    for entry in progress_bar(entries, desc="clicking"):
        file = folder / f"{entry['case']}.json"
        values = {name: [*own] for name, own in regions.items()}
        key = [model.identity, clicks, values, ignore, [file_hash(path) for path in entry_files(entry)]]
        kept = read_mapping(file) if file.is_file() else {}
        if kept.get("key") != key:
            kept = {"key": key, "rows": _measure_case(model, entry, regions, clicks, ignore)}
            write_json(file, kept)
        rows += kept["rows"]
    return pd.DataFrame(rows).astype({"seconds": float})


def _measure_case(
    model: ClickModel, entry: Mapping[str, Any], regions: Mapping[str, Sequence[int]], clicks: int, ignore: int | None
) -> list[dict[str, Any]]:
    label, rows = read_image(entry["label"]), []
    ignored = np.zeros(label.voxels.shape, bool) if ignore is None else label.voxels == ignore
    spacing = label.spacing(label.voxels.ndim)
    session, automatic = _timed(partial(model.open_session, entry), model.device)
    for region, values in regions.items():
        truth = np.isin(label.voxels, list(values)) & ~ignored
        mask, followed = session.mask(region, annotator=region) & ~ignored, 1.0
        given: tuple[list, list] = [], []  # foreground and background
        for number in range(clicks + 1):
            seconds = None if number else automatic
            if number and (click := find_next_click(mask, truth)) is not None:
                given[not click.positive].append(click.voxel)
                answer, seconds = _timed(partial(session.click, region, *given, annotator=region), model.device)
                mask, followed = answer.mask & ~ignored, 1 - len(answer.notes) / sum(map(len, given))
            about = {"case": entry["case"], "patient": entry["patient"], "region": region, "clicks": number}
            scores = measure_region(truth, mask, spacing, wanted=METRICS)
            rows.append({**about, **scores, "seconds": seconds, "followed": followed})
    return rows


def _timed(call: Callable[[], Any], device: str) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    returned: list[Any] = []
    seconds = time_call(lambda: returned.append(call()), device)
    return returned[0], seconds
