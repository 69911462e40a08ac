"""Time of one case from files to mask, by stage, next to the network alone and the plain sliding window."""

import shutil
import tempfile
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Transform

from bundle.benchmarks.gpu_use import measure_gpu_use
from bundle.benchmarks.nnunet import peer
from bundle.benchmarks.patients import write_patients
from bundle.benchmarks.timing import BenchmarkResult, Timing, add_ratios, time_call, time_in_turn
from scripts.data.images import write_like
from scripts.data.scan_checks import check_scan
from scripts.inference.feature_profile import compute_features, cut_middle, name_coarsest_layer
from scripts.network import precision

SHAPE = (240, 240, 155)  # voxels of 1 mm
BRAIN = (140, 175, 138)  # voxels, about the size of brains in BraTS 2015
WINDOW = 128
DEFAULT = [32, 64, 128, 256, 320, 320]
RADII = (0.2, 0.13, 0.08)  # of WT, TC and ET, as shares of the brain's shortest axis: 90, 24 and 6 ml
SEVERAL = 8  # cases in a row
NO_TUMOUR, TUMOUR = -9.0, 18.0  # logit of an untrained network, and what is added to it within a ball


def measure_inference(
    device: str = "cpu",
    repeats: int = 3,
    filters: list[int] | None = None,
    scale: float = 1.0,
    nnunet_python: str | None = None,
) -> BenchmarkResult:
    """Time inference on a phantom of four channels, without mirroring, by an untrained network.

    Its logits get three nested balls before post-processing, so that the mask is as large as a tumour's (`DrawBallsd`).
    """
    filters = filters or ([8, 16, 32, 64, 128, 128] if device == "cpu" else DEFAULT)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        case = write_case(folder, scale)
        config = read_inference(folder, device, filters, scale)
        network = config.get_parsed_content("network").eval()
        window, inferer = config["patch_size"], config.get_parsed_content("inferer")
        whole = torch.from_numpy(case)[None].to(device)
        stages, image = _stages(config, folder, network)
        prepared = image.as_tensor()[None].to(device)
        watch = Stopwatch(network, device)
        passes: list[float] = []

        def end_to_end() -> None:
            watch.read()
            shutil.rmtree(folder / "masks", ignore_errors=True)
            config.get_parsed_content("evaluator").run()
            passes.append(watch.read())

        def slide(infer: Callable, image: torch.Tensor) -> Callable[[], Any]:
            def call() -> None:
                with torch.inference_mode():
                    infer(image, network)

            return call

        def one(**settings: Any) -> Callable[[], Any]:
            given = {
                "overlap": 0.5, "mode": "gaussian", "sw_batch_size": 1, "patch_size": window,
                "background_logits": inferer.background_logits,
            }  # fmt: skip
            return slide(type(inferer)(**{**given, "roi_size": window, "half": inferer.half, **settings}), prepared)

        plain = SlidingWindowInferer(window, 1, 0.5, "gaussian")
        calls = {
            "ours, from four files to the mask": end_to_end,
            **{f"   of which {name}": call for name, call in stages.items()},
            "ours, the brain's box by windows": one(),
            "   in single precision": one(half=None),
            "   four windows at once": one(sw_batch_size=4),
            "   in as few windows as memory allows": one(roi_size="auto"),
            "plain: the whole volume, one window at a time": slide(plain, whole),
        }
        if inferer.half:

            def plain_half() -> None:
                with precision.autocast(whole.device, inferer.half):
                    calls["plain: the whole volume, one window at a time"]()

            calls["   in half precision"] = plain_half
        if device != "cpu":  # kernels are compiled, and the network is asked for its memory
            end_to_end()
            passes.clear()
        found = time_in_turn(calls, repeats, device)
        used = measure_several(config, device)
        mask = folder / "masks" / "X.nii.gz"
        inside = int(np.count_nonzero(nib.load(mask).dataobj))
    rows = [Timing("the network alone: ours, its forward passes", passes[:repeats])]
    rows += [Timing(name, values) for name, values in found.items()]
    if nnunet_python:
        image = {"image": prepared[0].numpy(force=True)}
        torch.cuda.empty_cache()  # it runs in a process of its own, on the same card
        theirs = peer.time_nnunet(
            nnunet_python, "infer", image, filters, window[0], repeats, bool(inferer.half), device
        )
        rows.append(Timing("nnU-Net: the brain's box by windows, without mirroring", theirs["windows"]))
    rows += used
    return BenchmarkResult(
        "infer",
        f"{' x '.join(map(str, case.shape[1:]))} voxels, brain {' x '.join(map(str, prepared.shape[2:]))}, windows of"
        f" {window[0]} per side, features {filters}",
        add_ratios(rows),
        {
            "shape": list(case.shape[1:]),
            "brain": list(prepared.shape[2:]),
            "mask_voxels": inside,
            "window": window,
            "filters": filters,
            "precision": inferer.half or "float32",
            "device": device,
        },
    )


class DrawBallsd(Transform):
    """Adds three nested balls in the middle of the image to the logits `pred` [3, X, Y, Z]: WT, TC and ET (`RADII`)."""

    def __init__(self) -> None:
        self.balls: torch.Tensor | None = None  # drawn for the first case

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with other logits."""
        logits = data["pred"]
        if self.balls is None:
            axes = (torch.arange(n, device=logits.device) - (n - 1) / 2 for n in logits.shape[1:])
            distance = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij")) ** 0.5
            self.balls = TUMOUR * torch.stack([distance < share * min(logits.shape[1:]) for share in RADII])
        return {**data, "pred": logits + self.balls}


class Stopwatch:
    """Sums the seconds of a network's forward passes: CPU time, or CUDA events without synchronisation.

    Args:
        network: timed from now on.
        device: on which it runs.
    """

    def __init__(self, network: torch.nn.Module, device: str) -> None:
        self.total, self.device = 0.0, device
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        forward = network.forward

        def timed(*args: Any) -> torch.Tensor:
            found: list[torch.Tensor] = []
            if device == "cpu":
                self.total += time_call(lambda: found.append(forward(*args)), device)
                return found[0]
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            found.append(forward(*args))
            ended.record()
            self.events.append((began, ended))
            return found[0]

        network.forward = timed

    def read(self) -> float:
        """The seconds since the last read."""
        if self.events:
            torch.cuda.synchronize(self.device)
            self.total += sum(began.elapsed_time(ended) for began, ended in self.events) / 1000
        total, self.total, self.events = self.total, 0.0, []
        return total


def _stages(
    config: ConfigParser, folder: Path, network: torch.nn.Module
) -> tuple[dict[str, Callable[[], Any]], MetaTensor]:
    """The stages of a case other than the network, each on the output of the one before, and the prepared image."""
    read, *others = config.get_parsed_content("preprocessing").transforms
    prepare, finish = Compose(others), config.get_parsed_content("postprocessing")
    entry = config.get_parsed_content("dataset").data[0]
    loaded = read(dict(entry))
    image = prepare(dict(loaded))["image"]
    on_device = image.to(config["device"])
    logits = MetaTensor(on_device.as_tensor()[: len(RADII)] + NO_TUMOUR)
    output = {"image": on_device, "pred": logits}  # as the evaluator passes them on
    channels, files = config["channels"], [Path(name) for name in entry["image"]]
    voxels, affine = loaded["image"].numpy(force=True), np.asarray(loaded["image"].affine)
    window = cut_middle(image, config["patch_size"]).to(config["device"])
    layer = name_coarsest_layer(network, window)
    assert layer is not None
    mask = np.asfortranarray(finish(dict(output))["pred"][0].cpu().numpy())
    stages = {
        "reading, and checks": lambda: read(dict(entry)),
        "checks of the scan alone": lambda: check_scan(voxels, affine, channels, files),
        "deep features for the checks": lambda: compute_features(network, layer, window),
        "preprocessing": lambda: prepare(dict(loaded)),
        "postprocessing": lambda: finish(dict(output)),
        "writing": lambda: write_like(folder / "mask.nii.gz", mask, entry["image"][0]),
    }
    return stages, image


def measure_several(config: ConfigParser, device: str) -> list[Timing]:
    """The time of a case among several, which are prepared and written beside the network, and how busy the GPU is.

    Nothing on a CPU, where CPU seconds count what runs beside the network all the same.
    """
    if device == "cpu":
        return []
    entry = config.get_parsed_content("dataset").data[0]
    rows = []
    for name, where in {f"ours, each of {SEVERAL} cases in a row": "cpu", "   prepared on the GPU": "@device"}.items():
        config.update({"preprocessing_device": where})
        config.parse()
        _run_cases(config, entry, 1)  # asks the network for its memory
        seconds = time_call(partial(_run_cases, config, entry, SEVERAL), device)
        used = measure_gpu_use(partial(_run_cases, config, entry, SEVERAL), device)  # the profiler slows it down
        rows += [Timing(name, [seconds / SEVERAL]), *used]
    return rows


def _run_cases(config: ConfigParser, entry: Mapping[str, Any], count: int) -> None:
    """Segment one case so many times, under names of its own."""
    cases = [{**entry, "case": f"{entry['case']}{number}"} for number in range(count)]
    config.get_parsed_content("dataloader").dataset.replace_cases(cases)
    evaluator = config.get_parsed_content("evaluator")
    evaluator.state.epoch_length = count
    evaluator.run()


def write_case(folder: Path, scale: float) -> np.ndarray:
    """Write a phantom's four channels, its head stretched to `BRAIN` in a scan of `SHAPE`; return them normalised."""
    write_patients(folder / "drawn", cases=1, size=96, spacing=2.0)
    shape, brain = ([round(n * scale) for n in size] for size in (SHAPE, BRAIN))
    inside = tuple(slice((n - b) // 2, (n - b) // 2 + b) for n, b in zip(shape, brain, strict=True))
    channels = []
    target = folder / "patients" / "X"
    target.mkdir(parents=True)
    for name in ("t1", "t1ce", "t2", "flair"):
        file = next((folder / "drawn").glob(f"*/*_{name}.nii.gz"))
        head = np.asarray(nib.load(file).dataobj, dtype=np.float32)
        there = [np.flatnonzero(head.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        head = head[tuple(slice(index[0], index[-1] + 1) for index in there)]
        stretched = torch.nn.functional.interpolate(torch.from_numpy(head)[None, None], brain, mode="nearest-exact")
        volume = np.zeros(shape, np.float32)
        volume[inside] = stretched[0, 0]
        nib.save(nib.Nifti1Image(volume.astype(np.int16), np.eye(4)), target / f"X_{name}.nii.gz")
        channels.append((volume - volume[volume > 0].mean()) / volume[volume > 0].std() * (volume > 0))
    return np.stack(channels)


def read_inference(folder: Path, device: str, filters: list[int], scale: float) -> ConfigParser:
    """The inference workflow for the case of `write_case`, with an untrained network and the balls of `DrawBallsd`."""
    config = ConfigParser()
    config.read_config("configs/inference.yaml")
    step = 2 ** (len(filters) - 1)
    window = max(step, round(WINDOW * scale / step) * step)
    places = {"input": str(folder / "patients"), "output_dir": str(folder / "masks"), "resume": True}
    config.update({**places, "device": device, "filters": filters, "patch_size": [window] * 3})
    config.update({"min_component_ml": {}})
    network = config.get_parsed_content("network_def")
    with torch.no_grad():
        network.output_block.conv.conv.bias.fill_(NO_TUMOUR)  # an untrained network would give noise, slow to compress
    ready = precision.prepare_network(network.to(device), config.get_parsed_content("channels_last"))
    config.update({"network": ready})
    config["handlers"] = config["handlers"][:1]  # no nested progress bar
    balls = {"_target_": f"{__name__}.{DrawBallsd.__name__}"}
    config["postprocessing#transforms"] = [balls, *config["postprocessing#transforms"]]
    config.parse()
    return config
