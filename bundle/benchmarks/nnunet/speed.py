"""Time of nnU-Net's training step and inference, run by the Python of its environment, without this project.

Arguments: `train` or `infer`; a case (.npz of image [C, ...], to train also label [...]), features by level as JSON,
patch, repeats, bf16 (0 or 1), device. Prints JSON, seconds of CPU time, or by the clock with a GPU: to train, of `data`
(in this process) and `network` for a batch of two; to infer, of the `windows` over the case.
"""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

REGIONS = [(1, 2, 3), (2, 3), (3,)]


def make_unet(channels: int, filters: list[int], deep_supervision: bool) -> PlainConvUNet:
    """The network that its planner would make with these features."""
    levels = len(filters)
    return PlainConvUNet(
        channels, levels, filters, torch.nn.Conv3d, 3, [1] + [2] * (levels - 1), 2, len(REGIONS), 2,
        conv_bias=True, norm_op=torch.nn.InstanceNorm3d, norm_op_kwargs={"affine": True, "eps": 1e-5},
        nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=deep_supervision,
    )  # fmt: skip


def half_precision(half: bool, device: str) -> AbstractContextManager:
    """Half precision as in the comparison; by itself it uses it on a GPU alone."""
    return torch.autocast(torch.device(device).type, torch.bfloat16) if half else nullcontext()


def now(device: str) -> float:
    """Seconds of CPU time; with a GPU, by the clock when it has done its work."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def time_inference(
    case: Mapping[str, np.ndarray], filters: list[int], patch: list[int], repeats: int, half: bool, device: str
) -> dict:
    """Time its predictor, without mirroring."""
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=device != "cpu", device=torch.device(device), allow_tqdm=False
    )
    predictor.network = make_unet(len(case["image"]), filters, deep_supervision=False).to(device)
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=len(REGIONS))
    image, found = torch.from_numpy(case["image"]).float(), []
    for _ in range(repeats):
        began = now(device)
        with half_precision(half, device):
            predictor.predict_sliding_window_return_logits(image)
        found.append(now(device) - began)
    return {"windows": found}


def time_training(
    case: Mapping[str, np.ndarray], filters: list[int], patch: list[int], repeats: int, half: bool, device: str
) -> dict:
    """Time its patch and augmentation, and a step of its network, loss and optimiser."""
    levels, image, label = len(filters), case["image"], case["label"][None]
    scales = [[1 / 2**level] * 3 for level in range(levels - 1)]
    angle = (-30 / 360 * 2 * np.pi, 30 / 360 * 2 * np.pi)  # its default for isotropic patches
    first = get_patch_size(patch, angle, angle, angle, (0.85, 1.25))
    augment = nnUNetTrainer.get_training_transforms(
        patch, angle, scales, (0, 1, 2), False, [True] * len(image), regions=REGIONS, foreground_labels=[1, 2, 3]
    )
    network = make_unet(len(image), filters, deep_supervision=True).to(device)
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
        return torch.stack([one["image"] for one in made]).to(device), [level.to(device) for level in seg]

    batch = data()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with half_precision(half, device):
            heads = network(batch[0])
        loss([head.float() for head in heads], batch[1]).backward()
        optimizer.step()

    found = {"network": [], "data": []}
    step()
    for _ in range(repeats):
        for name, call, times in (("network", step, 1), ("data", data, 4)):
            began = now(device)
            for _ in range(times):
                call()
            found[name].append((now(device) - began) / times)
    return found


def main(subject: str, path: str, features: str, side: str, repeats: str, half: str, device: str) -> None:
    """Measure and print."""
    measure = {"train": time_training, "infer": time_inference}[subject]
    print(json.dumps(measure(np.load(path), json.loads(features), [int(side)] * 3, int(repeats), half == "1", device)))


main(*sys.argv[1:])
