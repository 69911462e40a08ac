"""The profile of a run's training cases, which inference compares scans with (`scripts.data.profile`)."""

import copy
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose

from scripts.data.case_record import CaseRecord
from scripts.data.datalist import file_hash
from scripts.data.decision import RegionDecision
from scripts.data.loading import LoadImageChannelsd
from scripts.data.patch_dataset import PreparedCases
from scripts.data.profile import PROFILE, make_profile, profile_content
from scripts.data.scan_checks import summarise_channels
from scripts.data.scan_numbers import ScanNumbers, measure_scan
from scripts.errors import InputError
from scripts.files import write_text
from scripts.inference.feature_profile import compute_features, cut_middle, describe_features, name_coarsest_layer
from scripts.inference.mask_volumes import measure_label_volumes
from scripts.network.weights import MODEL, read_weights
from scripts.progress import progress_bar

MOST_CASES = 120  # evenly from the list: more change the limits little
WORKERS = 2  # threads that read


def write_profile(
    run_dir: str | os.PathLike,
    preprocessing: Compose,
    cases: PreparedCases,
    network: torch.nn.Module,
    patch_size: Sequence[int],
    decision: RegionDecision,
) -> None:
    """Write profile.json of the training cases next to a run's weights, unless it is there for these weights.

    Volumes alone have one. Cases that cannot be measured are left out. The file has no name of a case.

    Args:
        run_dir: the folder of the run.
        preprocessing: its first step loads the files.
        cases: the training cases; at most `MOST_CASES` of them are read.
        network: of the kind of the weights; a copy gets them, for the deep features.
        patch_size: of training, in voxels.
        decision: which regions a voxel of a label belongs to.
    """
    path, weights = Path(run_dir, PROFILE), Path(run_dir, MODEL)
    if len(patch_size) != 3 or not weights.is_file() or _is_written(path, sha256 := file_hash(weights)):
        return
    steps = preprocessing.flatten().transforms
    loader = next(step for step in steps if isinstance(step, LoadImageChannelsd))
    chosen = np.unique(np.linspace(0, len(cases) - 1, min(MOST_CASES, len(cases))).astype(int)).tolist()
    with ThreadPoolExecutor(WORKERS) as pool:
        work = pool.map(lambda place: _measure_case(cases.data[place], loader), chosen)
        shown = progress_bar(work, total=len(chosen), desc="profile of the training cases", unit="case")
        measured = {place: scan for place, scan in zip(chosen, shown, strict=True) if scan is not None}
    if not measured:
        return
    profile = make_profile(loader.channels, [*measured.values()])
    profile = profile._replace(numbers={**profile.numbers, **_label_volumes(cases, [*measured], decision)})
    windows = (cut_middle(cases.stored_case(place)["image"], patch_size) for place in measured)
    if found := _describe_features(network, weights, windows):
        described, distances = found
        profile = profile._replace(features=described, numbers={**profile.numbers, "features": distances})
    write_text(path, json.dumps({**profile_content(profile), "weights_sha256": sha256}) + "\n")


def _is_written(path: Path, sha256: str) -> bool:
    """Whether the profile of these weights is there, as in a run that is resumed after its end."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["weights_sha256"] == sha256
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _measure_case(entry: Mapping[str, Any], loader: LoadImageChannelsd) -> ScanNumbers | None:
    try:
        image, files = loader.load_image(entry["image"])
    except InputError:  # a file has changed since training read it
        return None
    voxels, affine = image.numpy(force=True), np.asarray(image.affine)
    channels = summarise_channels(voxels, affine, loader.channels, files, CaseRecord(""))
    return measure_scan(voxels, channels) if len(channels) == len(loader.channels) else None


def _label_volumes(cases: PreparedCases, places: Sequence[int], decision: RegionDecision) -> dict[str, list[float]]:
    """The volumes of each region in the labels that have it, in ml, sorted."""
    volumes = defaultdict(list)
    for place in places:
        case = cases.stored_case(place)
        for name, volume in measure_label_volumes(case["label"], decision, float(case["voxel_ml"])).items():
            volumes[name].append(float(f"{volume:.5g}"))
    return {name: sorted(own) for name, own in volumes.items()}


def _describe_features(
    network: torch.nn.Module, weights: Path, windows: Iterator[torch.Tensor]
) -> tuple[dict[str, Any], list[float]] | None:
    """The features of a profile, and distances between cases; None for a network whose window has further channels."""
    member = copy.deepcopy(network).eval()
    member.load_state_dict(read_weights(weights), strict=False)  # without coarse heads
    device = next(member.parameters()).device
    first = next(windows).to(device)
    try:
        layer = name_coarsest_layer(member, first)
    except RuntimeError:  # of a first convolution that expects coordinates or a coarse view
        return None
    if layer is None:
        return None
    features = [compute_features(member, layer, window.to(device)) for window in itertools.chain([first], windows)]
    return describe_features(layer, member, torch.stack(features).numpy())
