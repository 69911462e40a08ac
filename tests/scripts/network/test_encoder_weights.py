"""Weights of foreign encoders find their place by name and shape."""

import pytest
import torch
from monai.networks.nets import FlexibleUNet, SwinUNETR

from scripts.errors import InputError
from scripts.network.encoder_weights import download_encoder, load_encoder
from scripts.network.fcn import SkipFCN


def unet(channels: int = 4) -> FlexibleUNet:
    return FlexibleUNet(channels, 3, "resnet10", spatial_dims=2, decoder_channels=[16, 8, 8, 4, 4])


def test_encoder_is_found_and_adapted_to_four_channels(capsys, tmp_path):
    given = {f"module.{name}": weight for name, weight in unet(channels=3).encoder.state_dict().items()}
    torch.save(given, tmp_path / "encoder.pth")
    network = load_encoder(unet(), tmp_path / "encoder.pth")
    assert f"{len(given)} of its {len(given)} tensors fit" in capsys.readouterr().out
    found, first = network.encoder.state_dict(), given["module.conv1.weight"]
    assert all(
        torch.equal(found[name.removeprefix("module.")], weight)
        for name, weight in given.items()
        if weight is not first
    )
    equal = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(equal.repeat(1, 4, 1, 1), found["conv1.weight"]),
        torch.nn.functional.conv2d(equal.repeat(1, 3, 1, 1), first),
    )


def test_names_of_a_self_supervised_transformer_are_translated():
    network, other = (SwinUNETR(4, 3, feature_size=12) for _ in range(2))
    other = {
        f"module.{name.replace('linear1', 'fc1').replace('linear2', 'fc2')}": weight[:, :1]
        if weight.dim() == 5
        else weight
        for name, weight in other.swinViT.state_dict().items()
    }
    load_encoder(network, other)
    name = "layers1.0.blocks.0.mlp.linear1.weight"
    assert torch.equal(network.swinViT.state_dict()[name], other["module.layers1.0.blocks.0.mlp.fc1.weight"])


def test_convolutions_of_vgg16_have_the_names_of_torchvision():
    network, other = (SkipFCN(channels, 2, [4, 4, 8, 8, 8], 16) for channels in (1, 3))
    classifier = {f"classifier.{place}.weight": torch.rand(5, 5) for place in (0, 3, 6)}
    given = {**other.features.state_dict(prefix="features."), **classifier}
    load_encoder(network, given)
    assert torch.equal(network.features[28].weight, other.features[28].weight)
    assert {"features.0.weight", "features.2.bias", "features.28.weight"} <= {*given}


def test_weights_of_another_network_are_refused():
    before = unet().state_dict()
    other = SkipFCN(3, 2, [4, 4, 8, 8, 8], 16).state_dict()
    with pytest.raises(InputError, match=r"fits only 0 of its 3[0-9] tensors into FlexibleUNet"):
        load_encoder(network := unet(), other)
    assert before.keys() == network.state_dict().keys()


def test_encoder_that_cannot_be_downloaded_ends_in_a_sentence():
    with pytest.raises(InputError, match=r"weights of resnet18 cannot be downloaded .*give a file"):
        download_encoder("resnet18", 2)  # MONAI has it for volumes alone
