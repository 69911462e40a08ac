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


def seen_in_training_and_inference(training, read_config) -> list[torch.Tensor]:
    """A training case as a started training sees it, and as inference does with the run's settings."""
    case = training.get_parsed_content("train#dataset").data[0]
    inferring = read_config("configs/inference.yaml", profile=None, **settings_of(training))
    return [
        config.get_parsed_content("preprocessing")({key: case[key] for key in keys})["image"]
        for config, keys in ((training, ("image", "label")), (inferring, ("image",)))
    ]
