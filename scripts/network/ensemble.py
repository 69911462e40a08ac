"""Several runs of one configuration as one network, whose logits are the mean of theirs."""

import copy
import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scripts.errors import InputError
from scripts.network.outputs import read_logits
from scripts.network.weights import find_weights, load_weights, read_settings, settings_file

# in which members may differ
OF_A_RUN = ("checkpoint", "checkpoint_sha256", "min_component_ml", "min_component_probability", "fold", "about")


class Ensemble(nn.Module):
    """The mean of the logits of several networks, in float32. They run one after the other: memory as for one.

    In training each step is of one member, drawn at random, and returns what that member returns.

    Args:
        network: the first member; the others are copies of it, until they get their own weights.
        members: how many.

    Shapes: [B, C, ...] to logits [B, K, ...].
    """

    def __init__(self, network: nn.Module, members: int) -> None:
        super().__init__()
        self.members = nn.ModuleList([network, *(copy.deepcopy(network) for _ in range(members - 1))])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Mean logits of an image; in training, the output of one member."""
        if not torch.jit.is_scripting() and self.training:
            return random.choice([*self.members])(image)
        total = torch.zeros(1, dtype=torch.float32, device=image.device)
        for member in self.members:
            logits = member(image)
            if not torch.jit.is_scripting():
                logits = read_logits(logits, image.dim() - 2)
            total = total + logits
        return total / len(self.members)


def load_members(network: nn.Module, files: Sequence[str | os.PathLike]) -> nn.Module:
    """The network with the weights of one file, or an `Ensemble` of as many members as there are files.

    Raises:
        InputError: a file has the weights of another network.
    """
    if len(files) == 1:
        return load_weights(network, files[0])
    ensemble = Ensemble(network, len(files))
    for member, file in zip(ensemble.members, files, strict=True):
        load_weights(member, file)
    return ensemble


def find_member_weights(
    checkpoint: str | os.PathLike,
    sha256: Mapping[str, str | None] | None = None,
    run_dir: str | os.PathLike | None = None,
    ensemble: Sequence[str | os.PathLike] | None = None,
) -> list[str]:
    """The files of the weights to use: one, or that of each run of an ensemble, each verified as for one run.

    Args:
        checkpoint: as for `scripts.network.weights.find_weights`, if there is no ensemble.
        sha256: from the given settings.yaml, which must be that of one of the runs.
        run_dir: as for `find_weights`, if there is no ensemble.
        ensemble: folders of runs of one configuration.

    Raises:
        InputError: a run is missing, has no weights or other ones than it wrote, or the runs differ in a setting.
    """
    if ensemble is None:
        return [find_weights(checkpoint, sha256, run_dir)]
    if not isinstance(ensemble, list | tuple) or not ensemble:
        raise InputError(f'ensemble is {ensemble!r}: expected folders of runs, "[runs/cv/fold0,runs/cv/fold1]".')
    folders = [Path(folder) for folder in ensemble]
    settings = [read_run_settings(folder) for folder in folders]
    for folder, own in zip(folders, settings, strict=True):
        if different := differing_settings(settings[0], own):
            raise InputError(
                f"{folders[0]} and {folder} differ in {', '.join(different)}: the logits of one configuration alone are"
                " averaged; `python -m bundle segment` and `evaluate` average the probabilities of several."
            )
    recorded = [own.get("checkpoint_sha256") for own in settings]
    if sha256 and not {*sha256.values()} & {value for own in recorded for value in (own or {}).values()}:
        raise InputError(
            f"the given settings are of {next(iter(sha256))}, which is not in the ensemble: use"
            f" {settings_file(folders[0])}."
        )
    return [find_weights("", own, folder) for folder, own in zip(folders, recorded, strict=True)]


def read_run_settings(folder: Path) -> dict[str, Any]:
    """The settings.yaml of a run.

    Raises:
        InputError: the folder holds no run.
    """
    found = read_settings(folder)
    if not found:
        raise InputError(
            f"{folder} is not a run: expected {folder / 'settings.yaml'}, as `python -m bundle train` writes it."
        )
    return found


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of the settings in which two runs are of different configurations; order counts, as of regions."""
    names = sorted(({*one} | {*other}).difference(OF_A_RUN))
    return [name for name in names if json.dumps(one.get(name)) != json.dumps(other.get(name))]
