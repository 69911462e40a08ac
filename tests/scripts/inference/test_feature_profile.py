"""Deep features of scans, and their check."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.profile import Profile, profile_content
from scripts.files import write_json
from scripts.inference.feature_profile import (
    CheckFeaturesd,
    FeatureObserver,
    compute_features,
    cut_middle,
    describe_features,
    measure_distance,
    name_coarsest_layer,
)
from tests.made.network import network

WINDOW = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    return network().eval()


@pytest.fixture(scope="module")
def features(net):
    """Of twenty windows that resemble one another."""
    generator = torch.Generator().manual_seed(1)
    windows = [WINDOW + 0.1 * torch.randn(WINDOW.shape, generator=generator) for _ in range(20)]
    layer = name_coarsest_layer(net, WINDOW)
    return torch.stack([compute_features(net, layer, window) for window in windows]).numpy()


@pytest.fixture
def path(net, features, tmp_path):
    described, distances = describe_features(name_coarsest_layer(net, WINDOW), net, features)
    profile = Profile(20, ["a", "b", "c", "d"], {"features": distances}, {}, {}, described)
    write_json(tmp_path / "profile.json", profile_content(profile))
    return str(tmp_path / "profile.json")


def check_of(path, net, scan) -> dict:
    logits = MetaTensor(torch.zeros(1, 3, 16, 16, 16))
    FeatureObserver(path, [16, 16, 16])(logits, scan, net)
    (check,) = json.loads(CheckFeaturesd(path)({"pred": logits, "checks": "[]"})["checks"])
    return check


def test_features_are_channel_means_of_the_coarsest_convolution(net):
    layer = name_coarsest_layer(net, WINDOW)
    assert layer == "bottleneck.conv2.conv"
    seen = []
    handle = net.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output))
    net(WINDOW)
    handle.remove()
    assert torch.allclose(compute_features(net, layer, WINDOW), seen[0].mean((2, 3, 4))[0])


def test_a_network_without_convolutions_has_no_layer():
    assert name_coarsest_layer(torch.nn.Identity(), WINDOW) is None


@pytest.mark.parametrize("size", [(10, 20, 16), (16, 16, 16)])
def test_the_middle_window_has_the_size_of_a_patch(size):
    assert cut_middle(torch.ones(2, *size), [16, 16, 16]).shape == (1, 2, 16, 16, 16)


def test_distance_is_about_one_for_cases_of_the_cohort(net, features):
    described, distances = describe_features("bottleneck.conv2.conv", net, features)
    assert 0.5 < np.median(distances) < 2
    assert measure_distance(described, features[0] + 20 * features.std(0)) > 5 * max(distances)


def test_a_usual_scan_is_ok_and_a_strange_one_noted(path, net):
    assert check_of(path, net, WINDOW)["status"] == "ok"
    strange = check_of(path, net, WINDOW.flip(1))
    assert (strange["status"], strange["number"] > strange["limit"]) == ("note", True)


def test_features_of_other_weights_are_not_compared(path):
    check = check_of(path, network(seed=1).eval(), WINDOW)
    assert (check["status"], "none of this network's weights" in check["sentence"]) == ("not checked", True)


def test_nothing_is_added_where_scans_are_not_checked(path):
    assert CheckFeaturesd(path)({"pred": WINDOW}) == {"pred": WINDOW}
    assert CheckFeaturesd(None)({"pred": WINDOW, "checks": "[]"})["checks"] == "[]"
