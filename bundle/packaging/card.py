"""The model card of a package, docs/README.md, made from the run, its metadata and its evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from bundle.packaging.runs import Run

UNKNOWN = "unknown"


def render_card(
    run: Run,
    metadata: Mapping[str, Any],
    summary: Mapping[str, Any] | None,
    parameters: int,
    folder: str,
    costs: Sequence[str] = (),
    calibration: Sequence[str] = (),
) -> str:
    """The model card of a package called `folder`, with the number of `parameters` of its network.

    The card agrees with the package's metadata; `summary` is that of the evaluation, if there is one, and `costs` are
    sentences on what the lack of channels costs, `calibration` on what predicts the Dice of a mask.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bundle.packaging", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "interval": _interval, "count_of": _count_of}
    axes, patients = len(run.settings["patch_size"]), run.environment.get("patients", {})
    unit = "ml" if axes == 3 else "thousand pixels"
    mask = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    return environment.get_template("card.md.j2").render(
        metadata=metadata,
        settings=run.settings,
        summary=summary,
        network=run.member_network["_target_"],
        members=len(run.members),
        parameters=parameters,
        training=_training(run),
        training_patients=patients.get("training"),
        validation_patients=patients.get("validation"),
        evaluated=_evaluated(summary) if summary else "",
        regions=[f"{name} (labels {', '.join(map(str, values))})" for name, values in run.settings["regions"].items()],
        mask=[f"{value} {name}" for value, name in mask.items() if not name.startswith("unused_")],
        removed=[f"{name} {size:g} {unit}" for name, size in run.settings.get("min_component_ml", {}).items() if size]
        + [
            f"{name} mean probability {p:g}"
            for name, p in run.settings.get("min_component_probability", {}).items()
            if p
        ],
        axes=axes,
        voxels="voxels" if axes == 3 else "pixels",
        folder=folder,
        costs=costs,
        calibration=calibration,
    )


def _training(run: Run) -> dict[str, str]:
    config, machine, effort = run.config, run.environment, run.effort
    minutes, memory = effort.get("minutes"), effort.get("peak_memory_gib")
    kept = ", ".join(map(str, effort["kept_epoch"])) if run.members and effort else effort.get("kept_epoch")
    hardware = machine.get("gpu") or f"no GPU, {machine.get('cpus', '?')} CPU cores"
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    return {
        "Patches": f"{' x '.join(map(str, config['patch_size']))}, {config['batch_size']} per step,"
        f" {config['tumour_share']:.0%} centred on a labelled voxel",
        "Length": f"{effort['steps']:,} steps in {effort['epochs']} epochs" if effort else UNKNOWN,
        "Time": f"{minutes:g} minutes" if minutes is not None else UNKNOWN,
        "Hardware": hardware,
        "Peak memory": f"{memory:.1f} GiB {'of the GPU' if machine.get('gpu') else ''}".strip() if memory else UNKNOWN,
        "Loss": f"`{config['region_loss']['_target_']}`, per region",
        "Optimiser": f"`{config['optimizer']['_target_']}`, maximum learning rate {config['learning_rate']:g}",
        "Kept": f"epoch {kept}, the best on the validation cases" if effort else UNKNOWN,
        "Seed": str(machine.get("seed", UNKNOWN)),
        "Versions": versions or UNKNOWN,
        "Revision": (machine.get("git") or UNKNOWN) + (" with changes" if machine.get("git_changes") else ""),
    }


def _evaluated(summary: Mapping[str, Any]) -> str:
    patients, cases = _count_of(summary["patients"], "patient"), _count_of(summary["cases"], "case")
    roles = summary["roles"]
    part = "their role in training is unknown"
    if roles is not None:
        part = f"{_count_of(roles['test'], 'patient')} not used in training"
    failed = len(summary["failed"]) + len(summary["missing"])
    unscored = f" {_count_of(failed, 'case')} could not be scored and counted as Dice 0." if failed else ""
    return f"{patients}, {cases}; {part}.{unscored}"


def _count_of(items: Sequence[Any] | int | None, noun: str) -> str:
    if items is None:
        return f"an unknown number of {noun}s"
    number = items if isinstance(items, int) else len(items)
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _number(value: float | str | None, digits: int = 3) -> str:
    """A number of summary.json, which writes infinity as text."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else f"{value:.{digits}f}"


def _interval(pair: Sequence[float | str] | None) -> str:
    return f" ({_number(pair[0])} to {_number(pair[1])})" if pair else " (too few patients)"
