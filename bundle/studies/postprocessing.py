"""Smallest components per region, chosen on the masks of a cross-validation so that no tumour is erased.

    choose_postprocessing(out, content, dataset_dir, runs) -> ComponentChoice

takes OUT/masks, the masks of patients by networks that never saw them, made without any such rule
(`--min_component_ml "{}"`), and OUT/masks/probabilities where they were saved. It writes OUT/postprocessing.yaml, which
overrides inference and evaluation like a run's settings.yaml; OUT/postprocessing.csv, what was tried and why it was
kept or not; and the rule into settings.yaml of each of `runs`, so that their inference, evaluation and export use it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from bundle.analysis.statistics import mean_interval
from bundle.studies.component_trials import (
    MaskFiles,
    Minima,
    Scheme,
    Trial,
    apply_rules,
    find_masks,
    read_scheme,
    try_rules,
)
from scripts.files import read_mapping, write_text
from scripts.network.weights import settings_file
from scripts.parallel import map_in_processes
from scripts.scoring.tables import write_table
from scripts.training.component_thresholds import CANDIDATES_ML, FEWEST_PATIENTS

PROBABILITIES = (0.6, 0.7, 0.8, 0.9)  # mean probabilities to try
ROUNDING = 1e-9  # of a mean gain
COLUMNS = ["region", "min_ml", "min_probability", "patients", "dropped", "dice", "low", "high", "lesionwise", "kept"]
COLUMNS += ["reason"]


class ComponentChoice(NamedTuple):
    """The minima by region (absent: all components are kept), what was tried, and sentences for the user."""

    min_component_ml: dict[str, float]
    min_component_probability: dict[str, float]
    table: pd.DataFrame
    notes: list[str]


def choose_postprocessing(
    out: Path, content: Mapping[str, Any], dataset_dir: Path, runs: Sequence[Path], workers: int | None = None
) -> ComponentChoice:
    """Choose the smallest component of each region by volume, by mean probability, or both, and write the choice.

    A rule is kept if the Dice of its region rises in the mean over patients with an interval that excludes a loss, if
    neither Dice nor the BraTS 2023 lesion-wise Dice of any region falls in the mean, and if no patient loses a region.
    Of several it is the one with the largest gain, then with the fewest components dropped. With fewer than ten
    patients nothing is removed.

    Args:
        out: holds `masks/`; gets the files.
        content: of the data list; cases without a mask and test patients are left out.
        dataset_dir: the folder that its paths start from.
        runs: folders of the networks that made the masks, which get the rule.
        workers: processes; None: one per core.

    Raises:
        InputError: there are no masks, or one is damaged or on another grid than its label.
    """
    scheme = read_scheme(runs[0], content)
    files = find_masks(out / "masks", content, dataset_dir)
    patients = len({one.patient for one in files})
    if patients < FEWEST_PATIENTS:
        few = f"{patients} patients are too few to choose which components to drop, which takes {FEWEST_PATIENTS}"
        choice = ComponentChoice({}, {}, pd.DataFrame(columns=COLUMNS), [f"{few}: all are kept."])
    else:
        choice = _choose(files, scheme, workers)
    write_table(choice.table, out / "postprocessing.csv")
    minima = {
        "min_component_ml": choice.min_component_ml,
        "min_component_probability": choice.min_component_probability,
    }
    head = "".join(f"# {note}\n" for note in choice.notes)
    write_text(out / "postprocessing.yaml", head + yaml.safe_dump(minima, sort_keys=False, allow_unicode=True))
    for run in runs:
        change_settings(run, minima)
    return choice


def change_settings(run: Path, changes: Mapping[str, Any]) -> None:
    """Change values in a run's settings.yaml, whole or not at all; the comments at its head stay."""
    path = settings_file(run)
    head = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("#")]
    content = {**read_mapping(path), **changes}
    write_text(path, "".join(head) + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))


def _choose(files: list[MaskFiles], scheme: Scheme, workers: int | None) -> ComponentChoice:
    candidates = _candidates(all(one.probability for one in files))
    trials = partial(try_rules, scheme=scheme, candidates=candidates)
    tried = map_in_processes(trials, files, workers, "trying rules", "case")
    rows, chosen = [], {}
    for region in scheme.inner_first():
        tested = []
        for minima in candidates:
            found = [one.get((region, minima), Trial({}, 0, [])) for one in tried]
            tested.append(
                {
                    "region": region,
                    "min_ml": minima[0],
                    "min_probability": minima[1],
                    **_assess_rule(region, found, files),
                }
            )
        rows += tested
        if kept := [row for row in tested if not row["reason"]]:
            best = min(
                kept, key=lambda row: (-round(row["dice"], 6), row["dropped"], row["min_ml"], row["min_probability"])
            )
            chosen[region] = best["min_ml"], best["min_probability"]
    notes = []
    while len(chosen) > 1:  # an outer rule may undo the gain of an inner one
        together = partial(apply_rules, scheme=scheme, rules=chosen)
        joint = map_in_processes(together, files, workers, "trying them together", "case")
        reasons = {region: _assess_rule(region, joint, files)["reason"] for region in chosen}
        if not any(reasons.values()):
            break
        outermost = [*chosen][-1]
        notes.append(
            f"{outermost}: its rule is not kept next to those of other regions: {next(filter(None, reasons.values()))}."
        )
        del chosen[outermost]
    table = pd.DataFrame(rows)
    table["kept"] = [chosen.get(row["region"]) == (row["min_ml"], row["min_probability"]) for row in rows]
    for region in scheme.regions:
        notes.append(_describe(region, table, chosen))
    notes.append("The rules were chosen on these patients, so their gains are too high.")
    volumes = {region: ml for region, (ml, _) in chosen.items() if ml}
    means = {region: probability for region, (_, probability) in chosen.items() if probability}
    return ComponentChoice(volumes, means, table[COLUMNS], notes)


def _candidates(soft: bool) -> list[Minima]:
    means = (0.0, *PROBABILITIES) if soft else (0.0,)
    return [(ml, probability) for ml in CANDIDATES_ML for probability in means if ml or probability]


def _assess_rule(region: str, trials: Sequence[Trial], files: Sequence[MaskFiles]) -> dict[str, Any]:
    """The row of a rule: its gains by patient, and the reason against it, "" if there is none."""
    names = {name for trial in trials for name in trial.gains} | {region}
    patients = [one.patient for one in files]
    gains = {
        name: pd.DataFrame([trial.gains.get(name, (0.0, 0.0)) for trial in trials]).groupby(patients).mean().to_numpy()
        for name in names
    }
    dice = gains[region][:, 0]
    low, high = mean_interval(dice, range(len(dice))) or (float(dice.min()), float(dice.max()))
    row = {"patients": len(dice), "dropped": sum(trial.dropped for trial in trials), "dice": float(dice.mean())}
    row |= {"low": low, "high": high, "lesionwise": float(gains[region][:, 1].mean())}
    falling = [name for name in sorted(names) if (gains[name].mean(axis=0) < -ROUNDING).any()]
    lost = [f"{name} of {one.case}" for trial, one in zip(trials, files, strict=True) for name in trial.lost]
    if not row["dropped"]:
        reason = "drops nothing"
    elif lost:
        reason = f"erases {lost[0]}"
    elif falling:
        reason = f"lowers a score of {falling[0]}"
    elif row["dice"] <= ROUNDING or low < -ROUNDING:
        reason = f"does not help beyond chance: {row['dice']:+.4f} ({low:+.4f} to {high:+.4f})"
    else:
        reason = ""
    return {**row, "reason": reason}


def _describe(region: str, table: pd.DataFrame, chosen: Mapping[str, Minima]) -> str:
    if region not in chosen:
        return f"{region}: all components are kept: no rule helps without harm."
    ml, probability = chosen[region]
    row = table[table["kept"] & (table["region"] == region)].iloc[0]
    limits = [f"below {ml:g} ml"] * bool(ml) + [f"of a mean probability below {probability:g}"] * bool(probability)
    return (
        f"{region}: components {' and '.join(limits)} go, {row['dropped']} in {row['patients']} patients: Dice"
        f" {row['dice']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f}), lesion-wise {row['lesionwise']:+.4f}."
    )
