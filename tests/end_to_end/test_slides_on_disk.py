"""Slides from prepare to scores: patches from disk, the mask as a pyramidal TIFF."""

import shutil

import pytest
import tifffile
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, run

from bundle.commands.export import export
from tests.made import refused
from tests.made.slides import TOY, TRAIN, list_slides

pytestmark = pytest.mark.usefixtures("at_root")


def given(folder):
    return {**TOY, "datalist": str(folder / "data.json"), "dataset_dir": str(folder / "data")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("slides")
    list_slides(made / "data")
    return made


@pytest.fixture
def trained(folder, at_root):
    if not (folder / "run").is_dir():
        run("training", config_file=TRAIN, **given(folder), run_dir=str(folder / "run"))
    return folder / "run"


def weights(folder, run_dir, epochs=2, **settings):
    parser = ConfigParser()
    parser.read_config(TRAIN)
    parser.update({**given(folder), "run_dir": str(run_dir), **settings})
    parser.parse()
    parser.get_parsed_content("initialize")
    trainer = parser.get_parsed_content("train::trainer")
    if epochs < 2:
        trainer.add_event_handler(Events.EPOCH_STARTED(once=epochs + 1), lambda: trainer.terminate())
    parser.get_parsed_content("training")
    return parser.get_parsed_content("average").network.state_dict()


def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(folder, tmp_path):
    whole = weights(folder, tmp_path / "whole")
    weights(folder, tmp_path / "broken", epochs=1)
    resumed = weights(folder, tmp_path / "broken", resume=str(tmp_path / "broken"))
    assert all(torch.equal(weight, resumed[key]) for key, weight in whole.items())


def test_a_run_segments_slides_and_scores_the_masks(folder, trained, tmp_path):
    pytest.importorskip("zarr")
    files = ["configs/evaluate.yaml", str(trained / "settings.yaml")]
    run(
        "evaluating",
        config_file=files,
        **{k: given(folder)[k] for k in ("datalist", "dataset_dir")},
        overlap=0.0,
        output_dir=str(tmp_path),
        device="cpu",
        score_workers=1,
    )
    (dice,) = [line for line in (tmp_path / "cases.csv").read_text().splitlines() if ",dice," in line]
    assert float(dice.split(",")[4]) > 0.9
    (mask,) = (tmp_path / "masks").glob("*.tif")
    with tifffile.TiffFile(mask) as tiff:
        (level,) = tiff.series[0].levels
        assert level.keyframe.is_tiled


def test_a_slide_of_another_number_of_channels_is_refused(folder, trained, tmp_path, capsys):
    pytest.importorskip("zarr")
    (tmp_path / "in").mkdir()
    for name in ("s0.tif", "s0_mask.tif"):
        shutil.copy(folder / "data" / name, tmp_path / "in" / name)
    files = ["configs/inference.yaml", str(trained / "settings.yaml")]
    with pytest.raises(SystemExit):
        run("inferring", config_file=files, input=str(tmp_path / "in"), output_dir=str(tmp_path / "out"), device="cpu")
    assert "s0_mask.tif has 1 channels, the network expects 3" in capsys.readouterr().err
    assert (tmp_path / "out" / "s0.tif").is_file()


def test_a_run_of_slides_is_not_exported(trained, tmp_path):
    assert "programs that load one give it whole images" in refused(export, str(trained), out=str(tmp_path / "dist"))
