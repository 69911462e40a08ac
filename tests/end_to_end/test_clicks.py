"""A run of the recipe `clicks` is corrected by clicks, looked at and exported like any other."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monai.bundle import run

from bundle.__main__ import main
from bundle.commands.export import export
from bundle.commands.look import look
from scripts.data.datalist import read_datalist, select_cases
from scripts.inference.click_session import ClickSession
from tests.made.promptable import WRITERS, require

pytestmark = pytest.mark.usefixtures("at_root")
FILES = ["configs/train.yaml", "configs/tasks/phantom.yaml", "configs/recipes/clicks.yaml"]


def train(folder: Path, cohort, **settings) -> Path:
    run(
        "training", config_file=FILES, run_dir=str(folder), datalist=str(cohort.datalist), device="cpu",
        dataset_dir=str(cohort.dataset_dir), patch_size=[16, 16, 16], filters=[4, 8, 8], max_epochs=1,
        steps_per_epoch=2, val_interval=1, overlap=0.0, coordinates=True, **settings,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("clicks") / "run", cohort)


def test_settings_of_a_run_open_a_session(trained, cohort, read_config):
    files = ["configs/inference.yaml", str(trained / "settings.yaml")]
    config = read_config(*files, device="cpu", spacing=[5.0, 5.0, 5.0])
    parts = {
        name: config.get_parsed_content(name) for name in ("network", "inferer", "preprocessing", "region_decision")
    }
    entry, *_ = select_cases(read_datalist(cohort.datalist), cohort.dataset_dir, "labelled")
    case = parts["preprocessing"]({"image": entry["image"], "case": entry["case"]})
    session = ClickSession(case, *parts.values())
    place = tuple(length // 2 for length in session.mask("TC").shape)
    for name, wanted in (("foreground", True), ("background", False)):
        mask, _, windows = session.click("TC", **{name: [place]})
        assert mask[place] == wanted
        assert 0 < windows < len(session.automatic)


def test_clicks_are_part_of_the_training(trained, cohort, tmp_path):
    without = train(tmp_path / "run", cohort, click_share=0.0)
    losses = [
        np.genfromtxt(folder / "history.csv", delimiter=",", names=True)["train_loss"] for folder in (trained, without)
    ]
    assert losses[0] != losses[1]


def test_a_promptable_model_is_clicked_on_the_same_cases(trained, tmp_path, capsys):
    licence = require("medsam").licence
    weights, out = WRITERS["medsam"](tmp_path / "weights"), tmp_path / "out"
    options = ["--with", "medsam", "--weights", str(weights), "--clicks", "2", "--device", "cpu", "--out", str(out)]
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "clicks", str(trained), *options])
    assert "--channel is None: expected the one that medsam sees, of T1, T1c, T2, FLAIR" in capsys.readouterr().err
    main(["bench", "clicks", str(trained), *options, "--channel", "FLAIR"])
    rows = pd.read_csv(out / "clicks.csv")
    assert {*rows["clicks"]} == {0, 1, 2}
    assert {*rows["region"]} == {"WT", "TC", "ET"}
    assert (rows.loc[rows["clicks"] == 0, "dice"] == 0).all()
    printed = capsys.readouterr().out
    assert f"terms: {licence}" in printed
    assert "Cases: what medsam was trained on is not known here" in printed


def test_package_names_the_channels_of_clicks(trained, tmp_path):
    export(trained, out=tmp_path)
    (package,) = (path for path in tmp_path.iterdir() if path.is_dir())
    image = json.loads((package / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == len(image["channel_def"]) == 4 + 3 + 7
    assert image["channel_def"]["13"] == "background clicks on ET"


def test_look_draws_the_channels_of_the_scan(cohort, tmp_path):
    task = ["phantom", FILES[-1]]
    look(cohort.datalist, out=tmp_path / "look", dataset_dir=cohort.dataset_dir, task=task, patches=2)
    assert (tmp_path / "look" / "patches.png").is_file()


def test_bench_clicks_unseen_cases(trained, cohort, tmp_path, capsys):
    given = ["bench", "clicks", str(trained), "--device", "cpu", "--clicks", "1"]
    main([*given, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Clicks until a Dice is reached" in printed
    assert "were used to select the checkpoint" in printed
    cases = {
        entry["case"] for entry in select_cases(read_datalist(cohort.datalist), cohort.dataset_dir, "validation", 0)
    }
    table = np.genfromtxt(tmp_path / "out" / "clicks.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert {*table["case"]} == cases
    assert (tmp_path / "out" / "clicks.png").is_file()
    with pytest.raises(SystemExit, match="2"):
        main([*given, "--fold", "1"])
    assert "was trained on" in capsys.readouterr().err
