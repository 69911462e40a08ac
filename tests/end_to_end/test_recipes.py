"""Every recipe trains, learns a batch by heart, resumes, combines with others, and exports where it brings a network.

A recipe is tested by being in configs/recipes/. One that sets a `patch_size` of two axes is tested on slices.
"""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, run

from bundle.commands.export import export
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from scripts.config_settings import refuse_settings_without_effect
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.network.shapes import why_refused
from scripts.recipes import read_overrides, refuse_conflicts
from tests.conftest import Cohort
from tests.made import ROOT
from tests.made.first_stage import write_first_stage

pytestmark = pytest.mark.usefixtures("at_root")

RECIPES = sorted(path.stem for path in (ROOT / "configs" / "recipes").glob("*.yaml"))
NETWORKS = [name for name in RECIPES if "network_def" in read_overrides(ROOT / "configs" / "recipes" / f"{name}.yaml")]
PARTNERS = ("attention_unet", "focal_tversky", "class_ratios", "sgd_poly", "res_unet", "elastic")
TOY = {  # the same for all; a recipe takes the sizes of its network from `filters` and `patch_size`
    "device": "cpu",
    "batch_size": 2,
    "max_epochs": 2,
    "steps_per_epoch": 2,
    "val_interval": 2,
    "max_minutes": "$None",
    "overlap": 0.0,
    "amp": False,
    "num_workers": 0,  # other files test loader processes
}
STEPS, RATE, LEARNED = 20, 0.01, 0.92  # of learning one batch by heart: at most, and the share of the first loss


@pytest.fixture(autouse=True)
def _no_history_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.training.history.draw_history", lambda *_: None)  # other files test it


@pytest.fixture(autouse=True)
def _compare_packages_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """test_export.py tests the process of its own, which would load torch for each network."""

    def run_here(command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as inside, redirect_stdout(io.StringIO()) as printed:
            inside.setattr(sys, "argv", command[2:])
            inside.setattr(sys, "excepthook", sys.excepthook)
            inside.chdir(cwd)
            runpy.run_module(command[2], run_name="__main__")
        return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")

    monkeypatch.setattr("bundle.packaging.parity.subprocess", SimpleNamespace(run=run_here))


def recipe_file(name: str) -> str:
    return f"configs/recipes/{name}.yaml"


@pytest.fixture(scope="session")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Cohort]:
    """Four synthetic patients in slices, and in volumes, by the number of axes."""
    made = {}
    for axes in (2, 3):
        folder = tmp_path_factory.mktemp(f"cohort{axes}")
        made[axes] = Cohort(folder / "patients", folder / "list" / "datalist.json")
        made[axes].datalist.parent.mkdir()
        phantom(str(made[axes].dataset_dir), cases=4, size=32, spacing=6.0, dims=axes)
        prepare(str(made[axes].dataset_dir), out=str(made[axes].datalist), folds=4, picture=False, workers=1)
    return made


def settings_for(recipe: str, cohorts: dict[int, Cohort], folder: Path) -> dict[str, Any]:
    own = read_mapping(recipe_file(recipe))
    axes = len(own.get("patch_size", [0, 0, 0]))
    small, filters = ([16] * axes, [4, 8, 8]) if recipe not in NETWORKS else ([32] * axes, [4, 8, 8, 8, 8])
    given = {"datalist": str(cohorts[axes].datalist), "dataset_dir": str(cohorts[axes].dataset_dir)}
    given |= {"encoder_weights": "$None"} if "encoder_weights" in own else {}  # which would be downloaded
    if "first_stage" in own:
        masks = cohorts[axes].datalist.with_name("first_stage")
        given["first_stage"] = str(masks if masks.is_dir() else write_first_stage(masks, *cohorts[axes][::-1]))
    given |= {"batch_size": 1, "steps_per_epoch": 1} if recipe in NETWORKS else {}  # larger ones take longer
    settings = {**TOY, **given, "filters": filters, "run_dir": str(folder)}
    if recipe in NETWORKS and "@filters" not in str(own):  # its network has one size
        del settings["filters"]
    for size in (small, [64, *small[1:]]):  # some halve it five times, and need more than one voxel then
        settings["patch_size"] = size
        if not why_patch_is_refused(recipe, settings):
            break
    return settings


def why_patch_is_refused(recipe: str, settings: dict[str, Any]) -> str:
    parser = read_training([recipe], settings)
    channels = len(parser.get_parsed_content("network_channels"))
    return why_refused(parser.get_parsed_content("network_def"), channels, settings["patch_size"])


def read_training(recipes: list[str], settings: dict[str, Any]) -> ConfigParser:
    parser = ConfigParser()
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", *map(recipe_file, recipes)]
    parser.read_config(files)
    parser.update(settings)
    parser["training"] = [step for step in parser["training"] if "profile" not in step]  # other files test it
    parser.parse()
    return parser


def train(recipes: list[str], settings: dict[str, Any], broken: Path | None = None) -> dict[str, torch.Tensor]:
    """Train as the workflow does; the averaged weights. `broken` gets the folder that a kill in epoch 2 leaves."""
    parser = read_training(recipes, settings)
    parser.get_parsed_content("initialize")
    if broken:

        def copy() -> None:
            parser.get_parsed_content("run_state").wait_until_written()  # it is written during the next epoch
            copytree(settings["run_dir"], broken)

        parser.get_parsed_content("train::trainer").add_event_handler(Events.EPOCH_STARTED(once=2), copy)
    parser.get_parsed_content("training")
    parser.get_parsed_content("folder").close()
    return parser.get_parsed_content("average").network.state_dict()


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_resumes_and_exports(name, cohorts, tmp_path):
    settings, broken = settings_for(name, cohorts, tmp_path / "run"), tmp_path / "broken"
    whole = train([name], settings, broken)
    assert all(bool(weight.isfinite().all()) for weight in whole.values() if weight.is_floating_point())
    resumed = train([name], {**settings, "run_dir": str(broken), "resume": str(broken)})
    assert all(torch.equal(weight, resumed[key]) for key, weight in whole.items())
    if name in NETWORKS:
        export(settings["run_dir"], out=str(tmp_path / "dist"))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_learns_a_batch_by_heart(name, cohorts, tmp_path):
    parser = read_training([name], settings_for(name, cohorts, tmp_path / "run"))
    parser.get_parsed_content("initialize")
    network, loss, loader, inferer = (
        parser.get_parsed_content(part) for part in ("network", "loss", "train::dataloader", "train::inferer")
    )
    batch = next(iter(loader))
    image, label = batch["image"][:1].float(), batch["label"][:1].float()
    optimizer, values = torch.optim.AdamW(network.parameters(), RATE), []
    network.train()
    while len(values) < STEPS and not has_fallen(values):
        value = loss(inferer(image, network), label)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert has_fallen(values), values


def has_fallen(losses: list[float]) -> bool:
    """Whether the mean of the last three losses is below that of the first step."""
    return len(losses) > 3 and sum(losses[-3:]) / 3 < LEARNED * losses[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_network_takes_derived_channels_and_positions(name, cohorts, tmp_path):
    settings = settings_for(name, cohorts, tmp_path / "run")
    edges = {"of": "T1c", "transform": {"_target_": "skimage.filters.sobel", "_mode_": "callable"}}
    assert not why_patch_is_refused(name, {**settings, "derived_channels": {"Edges": edges}, "coordinates": True})


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_combines_with_recipes_of_other_sections(name, cohorts, tmp_path):
    chosen = [name]
    for partner in PARTNERS:
        both = [recipe_file(one) for one in (*chosen, partner)]
        with suppress(InputError):  # of one section, or without effect on a network, which other files test
            refuse_conflicts(both)
            config = read_training([*chosen, partner], {}).config
            refuse_settings_without_effect(config, config, {"config_file": both})
            chosen.append(partner)
    assert len(chosen) > 2
    settings = settings_for(name, cohorts, tmp_path / "run")
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", *map(recipe_file, dict.fromkeys(chosen))]
    run("check", config_file=files, **settings)
