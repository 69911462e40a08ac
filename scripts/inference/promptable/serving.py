"""Sessions of a promptable model for a click server (`scripts.inference.click_server`)."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.data.loading import LoadImageChannelsd
from scripts.inference.promptable.channel import read_channel
from scripts.inference.promptable.models import open_scan, require_promptable
from scripts.inference.promptable.session import PromptSession


class PromptSessions:
    """Makes the session of a scan, on one channel of its own files; the network is loaded once per device.

    Args:
        name: of `scripts.inference.promptable.models.MODELS`.
        channel: that the model sees, of `channels`.
        channels: of the scans, in order.
        channel_files: patterns of their files.
        regions: names; each has the mask of what is clicked in it.
        weights: their file or folder; None: the model's library fetches them.
    """

    def __init__(
        self,
        name: str,
        channel: str,
        channels: Sequence[str],
        channel_files: Mapping[str, Sequence[str]],
        regions: Sequence[str],
        weights: str | None = None,
    ) -> None:
        self.name, self.channel, self.channels, self.regions = name, channel, [*channels], [*regions]
        self.weights = None if weights is None else Path(weights)
        self.loader = LoadImageChannelsd("image", channels=self.channels, channel_files=channel_files)
        self.networks: dict[str, Any] = {}

    def __call__(self, case: Mapping[Hashable, Any], network: Any, device: str | torch.device) -> PromptSession:
        """The session of a prepared case.

        Args:
            case: with `image`, whose metadata name its file.
            network: of the package, which is not used.
            device: of the promptable model.
        """
        model = require_promptable(self.name)
        if str(device) not in self.networks:
            self.networks[str(device)] = model.load(self.weights, device)
        files = [str(file) for file in self.loader.find_files(case["image"].meta["filename_or_obj"])]
        scan = read_channel(files if len(files) > 1 else files[0], self.channel, self.channels)
        opened = open_scan(model, self.networks[str(device)], scan.voxels, scan.affine)
        return PromptSession(opened, scan.voxels.shape, self.regions)
