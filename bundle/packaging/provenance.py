"""What an answer says of the network that made it: name, version, weights, training, evaluation, terms of the data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.data.datalist import hash_of_files
from scripts.files import read_mapping
from scripts.inference.worker_process import is_package, source_root
from scripts.network.weights import MODEL, settings_file
from scripts.scoring.run import merge_roles, rename_former_roles

UNKNOWN, ENVIRONMENT = "not stated", "environment.json"


def describe_network(sources: Sequence[Path]) -> dict[str, Any]:
    """The network of a package, a run, or several runs of one configuration, for `answer.json` and the page.

    Returns:
        `name`, `version` (None for a run), `weights_sha256`, `intended_use`, `licences` (terms of what was used, by
        name), and `rows`, a heading and a sentence each.
    """
    source = sources[0]
    if is_package(source):
        metadata = read_mapping(source / "configs" / "metadata.json")
        patients = metadata.get("training", {}).get("patients", {})
        name, version, weights = metadata.get("name", source.name), metadata["version"], [source / "models" / MODEL]
        scores = metadata.get("eval_metrics", {})
        data, terms = metadata.get("data_source", UNKNOWN), metadata.get("data_terms", UNKNOWN)
        use = metadata.get("intended_use", "")
        about = {"Task": metadata["task"], "Scans": metadata.get("image_classes", UNKNOWN)}
    else:
        base = read_mapping(source_root() / "configs" / "metadata.json")
        settings = read_mapping(settings_file(source))
        about_task = settings.get("about") or {}
        records = [read_mapping(run / ENVIRONMENT) for run in sources if (run / ENVIRONMENT).is_file()]
        known = merge_roles(*(rename_former_roles(record.get("patients", {})) for record in records))
        patients = {role: len(names) for role, names in known.items()}
        name, version = about_task.get("title", source.name), None
        weights = [run / MODEL for run in sources]
        scores, data, terms = {}, about_task.get("data", UNKNOWN), about_task.get("terms", UNKNOWN)
        use = base["intended_use"]
        channels, regions = ", ".join(settings["channels"]), ", ".join(settings["regions"])
        about = {"Task": f"Segmentation of {regions} on {channels}"}
        about |= {"Runs": f"the mean of {len(sources)}"} if len(sources) > 1 else {}
    trained = [f"{count} for {role}" for role, count in patients.items() if count and role != "test"]
    return {
        "name": name,
        "version": version,
        "weights_sha256": hash_of_files(weights) if all(file.is_file() for file in weights) else None,
        "intended_use": use,
        "licences": {"training data": terms},
        "rows": {
            **about,
            "Trained on": f"{data}; patients: {', '.join(trained) or UNKNOWN}",
            "Terms of the data": terms,
            "Evaluated": _describe_scores(scores),
        },
    }


def _describe_scores(scores: Mapping[str, Any]) -> str:
    """The mean Dice of each region, with the number of cases."""
    regions = scores.get("regions", {})
    if not regions:
        return "not evaluated: the quality of its masks is unknown"
    held_out = scores.get("patients_that_took_no_part_in_training")
    means = ", ".join(f"{name} {own['dice']['mean']:.2f}" for name, own in regions.items() if "dice" in own)
    part = f"{held_out} of {scores['patients']} patients took no part in training"
    return f"mean Dice {means}, on {scores['cases']} cases; {part}"
