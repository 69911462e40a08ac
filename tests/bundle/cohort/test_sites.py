"""The site of each case comes from a table or from its name."""

import pytest

from bundle.cohort.sites import find_sites
from tests.made import refused

PATIENTS = {"a_1": "a", "a_2": "a", "b_1": "b"}


@pytest.mark.parametrize("table", ["case,site\na_1,X\na_2,X\nb_1,Y\nc,Z\n", "patient,site\na,X\na,X \nb,Y\n"])
def test_table_names_cases_or_patients(tmp_path, table):
    (tmp_path / "sites.csv").write_text(table)
    assert find_sites(PATIENTS, str(tmp_path / "sites.csv")) == {"a_1": "X", "a_2": "X", "b_1": "Y"}


def test_first_group_of_a_pattern_is_the_site():
    assert find_sites(PATIENTS, "^(.)_") == {"a_1": "a", "a_2": "a", "b_1": "b"}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("case,site\na_1,X\n", "has no site for 2 cases, such as a_2"),
        ("case,hospital\na_1,X\n", "has the columns case, hospital: expected site, and case or patient"),
        ("case,site\na_1,X\na_2,Y\nb_1,Y\n", "patient a is at the sites X and Y"),
        ("patient,site\na,X\na,Y\nb,Y\n", "lists patient a with two sites"),
    ],
)
def test_wrong_table_is_refused(tmp_path, table, sentence):
    (tmp_path / "sites.csv").write_text(table)
    assert sentence in refused(find_sites, PATIENTS, str(tmp_path / "sites.csv"))


def test_missing_table_and_wrong_pattern_are_refused():
    assert "no_table.csv cannot be read as a table" in refused(find_sites, PATIENTS, "no_table.csv")
    assert "does not match 1 of 3 cases, such as b_1: correct --sites" in refused(find_sites, PATIENTS, "(a)_")
