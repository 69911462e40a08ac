"""The site, such as a hospital, that each case comes from: by a table, or by the names of cases."""

import os
from collections.abc import Mapping
from pathlib import Path

from bundle.cohort.splits import match_names
from scripts.errors import InputError
from scripts.scoring.tables import read_table


def find_sites(patients: Mapping[str, str], source: str) -> dict[str, str]:
    """The site of each case.

    Args:
        patients: case to patient.
        source: a CSV file with the columns `site` and `case` or `patient`, or a regular expression whose first group
            in a case's name is the site.

    Raises:
        InputError: the table cannot be read or lacks a column or a case, the expression does not fit, or a patient is
            at two sites.
    """
    sites = _from_table(patients, source) if Path(source).suffix == ".csv" else match_names(patients, source, "--sites")
    at: dict[str, str] = {}
    for case, site in sites.items():
        if at.setdefault(patients[case], site) != site:
            raise InputError(
                f"patient {patients[case]} is at the sites {at[patients[case]]} and {site}: correct --sites, so that"
                " each patient has one."
            )
    return sites


def _from_table(patients: Mapping[str, str], path: str | os.PathLike) -> dict[str, str]:
    try:
        table = read_table(path, dtype=str)
    except (OSError, ValueError) as error:
        raise InputError(f"--sites: {path} cannot be read as a table ({error}): give a CSV file.") from error
    key = next((name for name in ("case", "patient") if name in table), None)
    if key is None or "site" not in table:
        raise InputError(f"--sites: {path} has the columns {', '.join(table)}: expected site, and case or patient.")
    pairs = table[[key, "site"]].dropna().apply(lambda column: column.str.strip()).drop_duplicates()
    if pairs[key].duplicated().any():
        twice = pairs.loc[pairs[key].duplicated(), key].iloc[0]
        raise InputError(f"--sites: {path} lists {key} {twice} with two sites: correct the table.")
    known = dict(zip(pairs[key], pairs["site"], strict=True))
    sites = {case: known.get(case if key == "case" else patient, "") for case, patient in patients.items()}
    if without := [case for case, site in sites.items() if not site]:
        raise InputError(f"--sites: {path} has no site for {len(without)} cases, such as {without[0]}: add a row.")
    return sites
