"""Recipes that set the same section are refused, and only these."""

import pytest

from scripts.errors import InputError
from scripts.recipes import read_overrides, refuse_conflicts


def write_recipes(folder, *contents):
    paths = [folder / f"{name}.yaml" for name in "abc"[: len(contents)]]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    return paths


@pytest.mark.parametrize(
    ("first", "second", "section"),
    [
        ("batch_size: 1", "batch_size: 2", "batch_size"),
        ("train::crop: {}", "train: {}", "train"),
        ("train#crop: {}", "train::crop::pos: 1", "train::crop"),
        ("+train::augmentation: {}", "train::augmentation: {}", "train::augmentation"),
    ],
)
def test_two_recipes_with_the_same_section_are_refused_by_name(tmp_path, first, second, section):
    with pytest.raises(InputError, match=f"recipes a and b both set {section}:"):
        refuse_conflicts(write_recipes(tmp_path, first, second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("batch_size: 1", "batch_size_of_validation: 2"),
        ("train::crop: {}", "train::dataset: {}"),
        ("+train::handlers: []", "+train::handlers: []"),
    ],
)
def test_recipes_with_different_or_merged_sections_combine(tmp_path, first, second):
    refuse_conflicts(write_recipes(tmp_path, first, second))


def test_the_same_recipe_given_twice_is_one(tmp_path):
    (path,) = write_recipes(tmp_path, "batch_size: 1")
    refuse_conflicts([path, str(path)])


@pytest.mark.parametrize("content", ["- a list", "a: [1", ""])
def test_file_without_settings_is_named(tmp_path, content):
    (path,) = write_recipes(tmp_path, content)
    with pytest.raises(InputError, match=r"a\.yaml (cannot be read as YAML|is empty|holds a list)"):
        read_overrides(path)
