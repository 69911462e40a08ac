"""How long does nnU-Net take for the same? Run by the Python of its environment, which knows nothing of this project.

Arguments: a case (.npz of image [C, ...] and label [...]), features by level as JSON, patch, repeats, bf16 (0 or 1).
Prints JSON: CPU seconds of `data` and `network` for a batch of two.
"""

import contextlib
import json
import sys
import time

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

REGIONS = [(1, 2, 3), (2, 3), (3,)]


def main(path: str, features: str, side: str, repeats: str, half: str) -> None:
    """Measure and print."""
    case, filters, patch = np.load(path), json.loads(features), [int(side)] * 3
    levels, image, label = len(filters), case["image"], case["label"][None]
    scales = [[1 / 2**level] * 3 for level in range(levels - 1)]
    angle = (-30 / 360 * 2 * np.pi, 30 / 360 * 2 * np.pi)  # its default for isotropic patches
    first = get_patch_size(patch, angle, angle, angle, (0.85, 1.25))
    augment = nnUNetTrainer.get_training_transforms(
        patch, angle, scales, (0, 1, 2), False, [True] * len(image), regions=REGIONS, foreground_labels=[1, 2, 3]
    )
    network = PlainConvUNet(
        len(image), levels, filters, torch.nn.Conv3d, 3, [1] + [2] * (levels - 1), 2, len(REGIONS), 2,
        conv_bias=True, norm_op=torch.nn.InstanceNorm3d, norm_op_kwargs={"affine": True, "eps": 1e-5},
        nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    dice = {"batch_dice": True, "do_bg": True, "smooth": 1e-5, "ddp": False}
    loss = DC_and_BCE_loss({}, dice, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([1 / 2**level for level in range(levels - 2)] + [0.0])
    loss = DeepSupervisionWrapper(loss, weights / weights.sum())
    rng = np.random.default_rng(0)

    def data() -> tuple[torch.Tensor, list[torch.Tensor]]:
        made = []
        for _ in range(2):
            low = [
                int(rng.integers(min(0, n - p), max(0, n - p) + 1)) for n, p in zip(image.shape[1:], first, strict=True)
            ]
            box = [[start, start + int(length)] for start, length in zip(low, first, strict=True)]
            cut = [torch.from_numpy(crop_and_pad_nd(array, box, 0)) for array in (image, label)]
            made.append(augment(image=cut[0].float(), segmentation=cut[1].to(torch.int16)))
        seg = [torch.stack([one["segmentation"][level] for one in made]) for level in range(levels - 1)]
        return torch.stack([one["image"] for one in made]), seg

    batch = data()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if int(half) else contextlib.nullcontext():
            heads = network(batch[0])
        loss([head.float() for head in heads], batch[1]).backward()
        optimizer.step()

    found = {"network": [], "data": []}
    step()
    for _ in range(int(repeats)):
        for name, call, times in (("network", step, 1), ("data", data, 4)):
            began = time.process_time()
            for _ in range(times):
                call()
            found[name].append((time.process_time() - began) / times)
    print(json.dumps(found))


main(*sys.argv[1:])
