"""The metadata.json of a package: the Model Zoo's keys, filled from a run and its evaluation."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema

from bundle.packaging.runs import Run
from scripts.data.decision import output_channels
from scripts.data.input_channels import name_channels
from scripts.errors import InputError

QUOTED = ("dice", "hd95")  # metrics in metadata and model card
SPREAD = ("unit", "cases", "mean", "median", "q1", "q3", "p5", "minimum", "maximum")  # statistics of each
TAIL = ("dice_below_0.5", "dice_below_0.7", "missed", "hallucinated", "failed")
MOST_SEGMENTS = 16  # up to this value gaps are named; a label of 255 is of pictures, which MONAI Label does not show
PACKAGE_FORMAT = 1  # raised when earlier versions would misread a package
VERSION = re.compile(r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$")


def make_metadata(
    base: Mapping[str, Any],
    run: Run,
    version: str,
    changelog: Mapping[str, str],
    summary: Mapping[str, Any] | None,
    divisor: Sequence[int] | None,
) -> dict[str, Any]:
    """The metadata of a run's package.

    `base` is the repository's metadata.json: versions, authors, intended use; `changelog` has the changes of each
    version, this one included; `summary` is that of the run's evaluation, if there is one; `divisor` is that of the
    network (`scripts.network.shapes.size_divisor`).
    """
    settings, about = run.settings, run.about
    regions, channels = ", ".join(settings["regions"]), ", ".join(settings["channels"])
    kind = "plain U-Net (MONAI's DynUNet) that" if run.member_network.get("_target_") == "DynUNet" else "network that"
    if run.members:
        kind = f"mean of {len(run.members)} networks, each a {kind}"
    return {
        **base,
        "name": about.get("title", base["name"]),
        "task": f"Segmentation of {regions} on {channels}",
        "description": f"A {kind} segments {regions} on {channels}, one output per {_unit(settings)}.",
        "data_source": about.get("data", "not stated"),
        "data_terms": about.get("terms", "not stated"),
        "data_type": "nifti" if len(settings["patch_size"]) == 3 else "picture",
        "image_classes": f"{channels}; {_normalisation(settings)}",
        "label_classes": ", ".join(f"{value} {name}" for name, value in settings["labels"].items()),
        "references": [*about.get("references", []), base["references"][0]] if about else base["references"],
        "package_format": PACKAGE_FORMAT,
        "version": version,
        "changelog": dict(changelog),
        "eval_metrics": quote_scores(summary),
        "training": {
            "seed": run.environment.get("seed"),
            "revision": run.environment.get("git"),
            "patients": {role: len(names) for role, names in run.environment.get("patients", {}).items()},
            **run.effort,
        },
        "network_data_format": network_data_format(settings, about.get("modality", "MR"), divisor),
    }


def quote_scores(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """The scores of a summary.json by region: n, mean, median, quartiles, tail. Empty without one."""
    if summary is None:
        return {}
    by_region = {}
    for name, region in summary["regions"].items():
        spreads = {metric: region["metrics"][metric] for metric in QUOTED if region["metrics"].get(metric)}
        quoted = {metric: {key: spread[key] for key in SPREAD} for metric, spread in spreads.items()}
        by_region[name] = quoted | {key: region[key] for key in TAIL}
    return {
        "patients": summary["patients"],
        "cases": summary["cases"],
        "part": summary["part"],
        "patients_that_took_no_part_in_training": len(summary["roles"]["test"]) if summary["roles"] else None,
        "datalist_sha256": summary["datalist"],
        "regions": by_region,
    }


def network_data_format(settings: Mapping[str, Any], modality: str, divisor: Sequence[int] | None) -> dict[str, Any]:
    """Input and output of the network, with the name of each mask value, which MONAI Label shows."""
    # twice the divisor, since a single voxel at the lowest level cannot be normalised
    shape = list(settings["patch_size"]) if divisor is None else [f"{2 * step}*n" for step in divisor]
    names = name_network_channels(settings)
    common = {"spatial_shape": shape, "dtype": "float32", "is_patch_data": True}
    image = {
        "type": "magnitude",
        "format": "normalized",
        "modality": modality,
        "num_channels": len(names),
        **common,
        "value_range": [-10, 10],
        "channel_def": {str(place): name for place, name in enumerate(names)},
    }
    pred = {
        "type": "probabilities",
        "format": "segmentation",
        "num_channels": len(
            output_channels(settings.get("decision", "regions"), settings["regions"], settings["labels"])
        ),
        **common,
        "value_range": [0, 1],
        "channel_def": mask_values(settings),
    }
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}


def name_network_channels(settings: Mapping[str, Any]) -> list[str]:
    """The names of the network's input channels, those that are computed included."""
    derived, coordinates, context = (settings.get(name) for name in ("derived_channels", "coordinates", "context"))
    prompts = settings["regions"] if "click_radius" in settings else ()  # of the recipe clicks
    axes = len(settings["patch_size"])
    return name_channels(settings["channels"], derived, bool(coordinates), context or 0, axes, prompts=prompts)


def mask_values(settings: Mapping[str, Any]) -> dict[str, str]:
    """The name of each value of a saved mask, in order, including gaps between small values.

    3D Slicer, through MONAI Label, takes the n-th name for value n, so a gap would shift the names after it.
    """
    by_class = settings.get("decision") == "classes"
    fill = 0 if by_class else settings.get("labels_fill", 0)
    painted_values = settings["labels" if by_class else "labels_out"].values()
    names: dict[int, list[str]] = {value: [] for value in (fill, *painted_values)}
    for name, label in settings["labels"].items():
        painted = [value for region, value in settings["labels_out"].items() if label in settings["regions"][region]]
        on_top = label if by_class else painted[-1] if painted else fill  # later regions lie on top
        names[on_top].append(name)
    values = range(max(names) + 1) if max(names) <= MOST_SEGMENTS else sorted(names)
    named = {value: " or ".join(names[value]) if value in names else f"unused_{value}" for value in values}
    background = {} if by_class and names[fill] else {fill: "background"}
    return {str(value): name for value, name in {**named, **background}.items()}


def check_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Read a metadata.json that follows MONAI's schema of bundles; an `InputError` names what it lacks."""
    try:
        metadata = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON: export the package again.") from error
    found = metadata.get("package_format", 0) if isinstance(metadata, dict) else 0
    if isinstance(found, int) and found > PACKAGE_FORMAT:
        raise InputError(
            f"{path} is of package format {found}, made by a newer version of this project: this version reads formats"
            f" up to {PACKAGE_FORMAT}; update it."
        )
    problem = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(read_schema()).iter_errors(metadata))
    if problem is not None:
        where = ".".join(map(str, problem.absolute_path)) or "its top level"
        raise InputError(
            f"{path} is not the metadata of a bundle: at {where}, {problem.message}; export the package again."
        )
    return metadata


def read_schema() -> dict[str, Any]:
    """MONAI's metadata schema 20240725, with the additional keys of this project's packages."""
    return json.loads(files("bundle.packaging").joinpath("metadata.schema.json").read_text(encoding="utf-8"))


def _unit(settings: Mapping[str, Any]) -> str:
    return "class" if settings.get("decision") == "classes" else "region"


def _normalisation(settings: Mapping[str, Any]) -> str:
    if (settings["normalize"], settings["normalize_scope"]) == ("zscore_nonzero", "volume"):
        return "z-score of the voxels that are not 0, by scan and channel"
    if settings["normalize"] == "hu_window":
        return "{:g} to {:g} HU scaled to 0 to 1, clipped".format(*settings["hu_window"])
    return f"normalised by {settings['normalize']}, scope {settings['normalize_scope']}"
