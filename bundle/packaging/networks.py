"""Logits of a run's training network on patches of real cases, to compare exports with."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from bundle.packaging.parity import read_config
from bundle.packaging.runs import Run
from scripts.data import datalist as lists
from scripts.data.input_channels import WindowChannels
from scripts.errors import InputError
from scripts.network.checkpoint_file import read_state
from scripts.network.outputs import read_logits
from scripts.network.weights import load_weights, read_weights


def load_inference_network(package: Path) -> nn.Module:
    """The network of a package's inference.yaml with its weights, on the CPU."""
    parser = read_config(package / "configs" / "inference.yaml")
    path = package / "models" / "model.pt"
    network = load_weights(parser.get_parsed_content("network_def"), path).eval()
    if read_state(path).keys() != network.state_dict().keys():  # which MONAI Label would leave at random
        raise InputError(f"{path} does not have weights with the names of the network: export the package again.")
    return network


def compute_training_logits(run: Run, patches: torch.Tensor) -> torch.Tensor:
    """Logits [N, R, ...] of the training network, with coarse heads and the run's weights; the mean of members."""
    if run.members:
        return torch.stack([compute_training_logits(member, patches) for member in run.members]).mean(0)
    network = read_config(dict(run.config)).get_parsed_content("network_def").eval()
    missing, unexpected = network.load_state_dict(read_weights(run.weights), strict=False)
    if unexpected or [name for name in missing if "head" not in name]:
        raise InputError(f"{run.weights} does not fit the network of {run.folder / 'config.yaml'}: train again.")
    with torch.no_grad():
        return torch.cat([read_logits(network(patch[None]), patch.dim() - 1) for patch in patches])


def cut_validation_patches(
    run: Run, datalist: str | None, dataset_dir: str | None, cases: int
) -> tuple[torch.Tensor, int]:
    """Patches [N, C, ...] of validation cases, two of each: in the middle and where the label is; number of cases.

    Raises:
        InputError: the data list or its files are not where the run had them.
    """
    path, root = datalist or run.config["datalist"], dataset_dir or run.config["dataset_dir"]
    try:
        content = lists.read_datalist(path)
        chosen = lists.select_cases(content, root, "validation", run.config["fold"])[:cases]
        lists.check_files(content, chosen, ".", hashes=False)  # select has put the root before each path
    except InputError as error:
        raise InputError(
            f"{error} Exports are compared on real cases: give their place by --datalist and --dataset_dir."
        ) from error
    parser = read_config(dict(run.config))
    prepare, size = parser.get_parsed_content("validate::preprocessing"), tuple(run.settings["patch_size"])
    further = parser.get_parsed_content("window_channels") if "window_channels" in run.config else None
    cut = []
    for entry in chosen:
        case = prepare(dict(entry))
        label = np.asarray(case["label"]).any(axis=0)
        middle = [length // 2 for length in label.shape]
        labelled = np.argwhere(label)
        centres = [middle, labelled[len(labelled) // 2].tolist() if len(labelled) else middle]
        cut += [_patch(torch.as_tensor(np.asarray(case["image"])), centre, size, further) for centre in centres]
    return torch.stack(cut).float(), len(chosen)


def _patch(
    image: torch.Tensor, centre: list[int], size: tuple[int, ...], further: WindowChannels | None
) -> torch.Tensor:
    """A patch around `centre`, shifted into the image and padded with 0 if that is smaller, with `further` channels."""
    missing = [max(0, want - have) for want, have in zip(size, image.shape[1:], strict=True)]
    padded = nn.functional.pad(image, [pad for gap in reversed(missing) for pad in (0, gap)])
    starts = [
        min(max(0, middle - want // 2), have - want)
        for middle, want, have in zip(centre, size, padded.shape[1:], strict=True)
    ]
    patch = padded[(slice(None), *(slice(s, s + want) for s, want in zip(starts, size, strict=True)))]
    return torch.cat([patch, further(image, starts, size)]) if further else patch
