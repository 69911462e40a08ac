"""Normalised images, and the settings that a run writes when its training begins."""

from __future__ import annotations

import torch
import yaml

from scripts.data.normalization import Normalized


def normalized(image, method: str, scope: str = "volume", statistics=None) -> torch.Tensor:
    tensor = torch.as_tensor(image, dtype=torch.float32)
    return Normalized("image", method, scope, statistics)({"image": tensor.clone()})["image"]


def settings_of(config) -> dict:
    return yaml.safe_load((config.get_parsed_content("folder").path / "settings.yaml").read_text())


def started(config):
    """Run the first two steps of `training`."""
    for step in config["training"][:2]:
        config["step"] = step
        config.get_parsed_content("step")
    return config
