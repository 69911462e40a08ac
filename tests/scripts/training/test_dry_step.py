"""The step without computation refuses parts that do not fit, and leaves the network as it was."""

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss

from scripts.errors import InputError
from scripts.training.dry_step import check_decision, run_dry_step
from scripts.training.losses import FocalTverskyLoss, RegionDiceCELoss


def squared_error(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return ((output - label) ** 2).mean()


def test_fitting_network_and_loss_pass_and_keep_their_weights():
    network = torch.nn.Conv3d(4, 3, 3, padding=1)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    run_dry_step(network, squared_error, 4, 3, [512, 512, 512], 2)  # 100 GB, if anything were computed
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize(
    ("network", "said"),
    [(torch.nn.Conv3d(2, 3, 3, padding=1), "2 channels"), (torch.nn.Conv3d(4, 2, 3, padding=1), "length 3")],
)
def test_wrong_number_of_channels_or_regions_is_refused(network, said):
    with pytest.raises(InputError, match=r"a training step on a batch of \[2, 4, 16, 16, 16\] fails") as caught:
        run_dry_step(network, squared_error, 4, 3, [16, 16, 16], 2)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loss_that_branches_on_voxels_is_not_refused():
    network = torch.nn.Conv3d(1, 1, 1)
    run_dry_step(network, lambda output, label: output.sum() if label.max() > 0 else output.mean(), 1, 1, [4, 4, 4], 1)


SOFTMAX, SIGMOID = (DiceCELoss(softmax=True), DiceLoss(softmax=True)), (RegionDiceCELoss(), FocalTverskyLoss())


@pytest.mark.parametrize("loss", SOFTMAX)
def test_softmax_loss_fits_classes_alone(loss):
    check_decision(loss, "classes", 4, 3)
    with pytest.raises(InputError, match="reads the network's output as a sigmoid per region"):
        check_decision(loss, "regions", 4, 3)


@pytest.mark.parametrize("loss", SIGMOID)
def test_sigmoid_loss_fits_regions_alone(loss):
    check_decision(loss, "regions", 3, 2)
    with pytest.raises(InputError, match="but the loss is of a sigmoid per region"):
        check_decision(loss, "classes", 3, 2)


@pytest.mark.parametrize("loss", [DiceLoss(sigmoid=False), DiceCELoss(sigmoid=False, lambda_ce=0.0)])
def test_loss_without_its_sigmoid_is_refused(loss):
    with pytest.raises(InputError, match="it takes logits for probabilities; give it a sigmoid"):
        check_decision(loss, "regions", 3, 3)


def test_window_of_another_size_than_the_patch_is_refused():
    class Shrinking(torch.nn.Conv3d):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = super().forward(image)
            return logits if self.training else logits[..., 1:]

    with pytest.raises(InputError, match=r"a window gives logits of \[2, 3, 16, 16, 15\]"):
        run_dry_step(Shrinking(4, 3, 1), squared_error, 4, 3, [16, 16, 16], 2)
