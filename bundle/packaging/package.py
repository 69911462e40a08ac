"""Trained runs as Model Zoo packages: written whole or not at all, with one content per version."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bundle.analysis.channel_costs import describe_channel_costs, measure_channel_costs
from bundle.analysis.mask_quality import describe_calibration
from bundle.drawing.network_graph import read_graph
from bundle.drawing.network_picture import draw_network
from bundle.packaging import archive, card, configs, formats, metadata, networks, package_check, parity
from bundle.packaging.metadata import VERSION
from bundle.packaging.runs import Run
from scripts.data.datalist import file_hash
from scripts.data.profile import PROFILE, find_profile
from scripts.errors import InputError
from scripts.files import remove_leftovers, unfinished_prefix, write_json, write_text
from scripts.inference import package_manifest as manifest
from scripts.inference.predicted_dice import QUALITY, find_quality, read_quality
from scripts.network import shapes
from scripts.network.checkpoint_file import save_state
from scripts.network.ensemble import Ensemble

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
TAKEN = ("detection", "deepedit")  # MONAI Label selects the type of a model by these words in its name
DATA_TERMS = """The weights were trained on: {data}

Terms of use of these data: {terms}

The package contains no data. The terms may bind the weights as well, whatever the licence of the code.
"""
COPIED = ("LICENSE", "configs/multi_gpu_train.yaml", "configs/logging.conf")


@dataclass(frozen=True)
class PackagePlan:
    """The content of a package."""

    run: Run
    name: str  # without the version
    version: str  # MAJOR.MINOR.PATCH
    change: str  # what is new in this version
    summary: Mapping[str, Any] | None  # the summary.json of the run's evaluation
    formats: Sequence[str] = ()  # in addition to model.pt, of `bundle.packaging.formats.FORMATS`
    datalist: str | None = None  # of the cases to compare on, if that of the run has moved
    dataset_dir: str | None = None  # where its paths start, if they have moved
    cases: int = 2


class WrittenPackage(NamedTuple):
    """A package on disk, and whether it already existed with the same bytes."""

    folder: Path
    zipped: Path
    sha256: str
    metadata: dict[str, Any]
    unchanged: bool


def write_package(plan: PackagePlan, out: Path, report: Callable[[str], None]) -> WrittenPackage:
    """Write OUT/NAME-VERSION and its zip, both whole or not at all; this user trusts the package from then on.

    `report` gets a line before each long step.

    Raises:
        InputError: the version is too low or taken, the package differs from the run, the run is of slides, or `out`
            cannot be written.
    """
    if "evaluator" in plan.run.settings:
        raise InputError(
            f"{plan.run.folder} was trained with large_images, which has no package: programs that load one give it"
            " whole images; use `segment` with the run."
        )
    if plan.run.settings.get("first_stage"):
        raise InputError(
            f"{plan.run.folder} is the second stage of a cascade, which needs the masks of its first stage: a package"
            " holds one network; use `segment` with the run, or export the first stage."
        )
    target = out / f"{plan.name}-{plan.version}"
    zipped = target.with_name(f"{target.name}.zip")
    earlier = _read_earlier(out, plan)
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        with tempfile.TemporaryDirectory(dir=out, prefix=unfinished_prefix()) as unfinished:
            package = Path(unfinished, target.name)
            _fill(package, plan, {**earlier.get("changelog", {}), plan.version: plan.change}, report)
            made = package_check.check_package(package, trust=True)
            sha256 = manifest.hash_package(manifest.hash_files(package))
            _require_higher_version(made, earlier)
            unchanged = target.exists()
            if not unchanged:
                package.rename(target)
            elif not archive.same_files(package, target):
                raise InputError(f"{target} has other content: give a higher --version, or delete it.")
        archive.zip_folder(target, zipped)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}): free space there, or choose another --out."
        ) from error
    return WrittenPackage(target, zipped, sha256, made, unchanged)


def package_name(run: Run, name: str | None, version: str) -> str:
    """The name of a run's package, by default LABELSCHEME_segmentation; refuses invalid names and versions."""
    name = name or f"{re.sub(r'[^a-z0-9]+', '_', str(run.settings['label_scheme']).lower())}_segmentation"
    if not NAME.match(name):
        raise InputError(f"name is '{name}': expected snake_case, such as brats_mri_segmentation.")
    if taken := [word for word in TAKEN if word in name]:
        raise InputError(
            f"name is '{name}': MONAI Label would treat a model with '{taken[0]}' in its name as another type; choose"
            " another."
        )
    if not VERSION.match(version):
        raise InputError(f"version is '{version}': expected MAJOR.MINOR.PATCH, such as 0.2.0.")
    return name


def read_summary(run: Run, evaluation: str | None) -> dict[str, Any] | None:
    """The summary.json of an evaluation of a run's weights; None where there is no evaluation.

    `evaluation` is the folder with the summary.json, or that file; by default RUN/evaluation, if there is one.

    Raises:
        InputError: the named one is missing, unreadable, or of other weights.
    """
    folder = Path(evaluation) if evaluation else run.folder / "evaluation"
    path = folder if folder.suffix == ".json" else folder / "summary.json"
    if not path.is_file():
        if evaluation or (folder / "cases.csv").is_file():
            raise InputError(f"there is no {path}: make it by `python -m bundle report {folder}`.")
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        scored = summary["about"].get("sha256")
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is not the summary of an evaluation: make it by `python -m bundle report`."
        ) from error
    if scored is None:
        raise InputError(
            f"{path} does not record which weights were scored: evaluate {run.weights}, then make the report."
        )
    if scored != run.sha256:
        raise InputError(f"{path} is of other weights than {run.weights}: evaluate these, then make the report.")
    return summary


def list_scripts() -> list[str]:
    """All files of scripts/, so that no module can be missing in a package."""
    return [path.relative_to(ROOT).as_posix() for path in archive.list_files(ROOT / "scripts")]


def _fill(package: Path, plan: PackagePlan, changelog: Mapping[str, str], report: Callable[[str], None]) -> None:
    """Write the package's files, and compare its network with the run's."""
    run = plan.run
    costs = measure_channel_costs(run.folder, run.sha256)
    settings = {**run.settings, **({"channel_costs": costs} if costs else {})}
    for file in (*COPIED, *list_scripts()):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, package / file)
    head = (
        "Made by `python -m bundle export`: the workflow file with the values of a training on"
        f" {run.about.get('title', settings['label_scheme'])}\n(revision {run.environment.get('git') or 'unknown'},"
        f" seed {run.environment.get('seed')}) in place of tasks, recipes and imports from inference.yaml."
    )
    for file, text in configs.make_self_contained(ROOT / "configs", settings, run.config, head).items():
        write_text(package / "configs" / file, text)
    save_state(package / "models" / "model.pt", weights := run.read_weights())
    formats.write_safetensors(package, weights)
    if terms := run.about.get("terms"):
        write_text(package / "docs" / "data_license.txt", DATA_TERMS.format(data=run.about.get("data"), terms=terms))
    if profile := find_profile([member.weights for member in run.members or (run,)]):
        shutil.copyfile(profile, package / "models" / PROFILE)
    calibration = _copy_calibration(run, package)
    network = networks.load_inference_network(package)
    divisor = shapes.size_divisor(network, len(metadata.name_network_channels(settings)), settings["patch_size"])
    base = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    content = metadata.make_metadata(base, run, plan.version, changelog, plan.summary, divisor)
    write_json(package / "configs" / "metadata.json", content)
    patches, cases = networks.cut_validation_patches(run, plan.datalist, plan.dataset_dir, plan.cases)
    logits = networks.compute_training_logits(run, patches)
    report(f"writing {', '.join(f'model.{ending}' for ending in ('pt', *plan.formats))} ...")
    example = torch.zeros_like(patches[:2])
    fixed = formats.write_formats(package, network, example, plan.formats, divisor)
    if fixed:
        report(f"model.{' and model.'.join(fixed)} accept patches of {settings['patch_size']} voxels alone")
    report(f"comparing on {len(patches)} patches, in a separate process ...")
    compared = parity.compare_formats(package, patches.numpy(), logits.numpy())
    content["compared"] = {"cases": cases, "patches": len(patches), "formats": compared}
    write_text(package / "configs" / "metadata.json", json.dumps(content, indent=4, ensure_ascii=False) + "\n")
    parameters = sum(p.numel() for p in network.parameters())
    drawn = network.members[0] if isinstance(network, Ensemble) else network
    graph = read_graph(drawn, len(metadata.name_network_channels(settings)), settings["patch_size"])
    write_text(package / "docs" / "network.svg", draw_network(graph))
    write_text(
        package / "docs" / "README.md",
        card.render_card(run, content, plan.summary, parameters, plan.name, describe_channel_costs(costs), calibration),
    )
    for leftover in package.rglob("__pycache__"):
        shutil.rmtree(leftover)
    manifest.write_manifest(package)


def _copy_calibration(run: Run, package: Path) -> list[str]:
    """Write the calibration of a run's weights, if there is one, for those of the package; returns it in sentences."""
    files = [member.weights for member in run.members or (run,)]
    if not (path := find_quality(files)):
        return []
    content = read_quality(path)
    if not {file_hash(file) for file in files} <= {*content["weights"]}:
        return []
    models = package / "models"
    write_json(models / QUALITY, {**content, "weights": [file_hash(models / "model.pt")]})
    return describe_calibration(content["regions"])


def _read_earlier(out: Path, plan: PackagePlan) -> dict[str, Any]:
    """The metadata of the highest version of the package in `out`, other than this one; {} if none."""
    found = {}
    for path in out.glob(f"{plan.name}-*/configs/metadata.json"):
        other = path.parents[1].name.removeprefix(f"{plan.name}-")
        if VERSION.match(other) and other != plan.version:
            found[_numbers(other)] = path
    if not found:
        return {}
    newest = max(found)
    if newest > _numbers(plan.version):
        raise InputError(
            f"{out} holds version {'.'.join(map(str, newest))} of {plan.name}: give a higher --version than that."
        )
    return json.loads(found[newest].read_text(encoding="utf-8"))


def _require_higher_version(made: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """Require a higher version number when inputs or outputs changed."""
    if not earlier or made["network_data_format"] == earlier["network_data_format"]:
        return
    new, old = _numbers(made["version"]), _numbers(earlier["version"])
    place = 0 if old[0] else 1
    if new[place] == old[place]:
        raise InputError(
            f"version {made['version']} has other inputs or outputs than {earlier['version']} (channels, regions, mask"
            f" values or sizes): give a higher {('MAJOR', 'MINOR')[place]} number."
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
