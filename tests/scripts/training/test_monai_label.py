"""Fine-tuning of a package's weights by MONAI Label."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import run
from monai.networks.nets import DynUNet

from scripts.data import datalist
from scripts.errors import InputError
from scripts.network.weights import without_heads
from scripts.training import monai_label

FILES = ["configs/train.yaml", "configs/tasks/phantom.yaml"]


def labelled(patients: Path, *numbers: int) -> list[dict[str, str]]:
    """What MONAI Label passes for each patient: one channel's file, and the label."""
    cases = [patients / f"BraTS2021_{number:05d}" for number in numbers]
    return [{"image": f"{c}/{c.name}_flair.nii.gz", "label": f"{c}/{c.name}_seg.nii.gz"} for c in cases]


@pytest.fixture
def package(tmp_path, at_root) -> Path:
    """A package with random weights."""
    root = tmp_path / "package"
    shutil.copytree(at_root / "configs", root / "configs")
    network = DynUNet(3, 4, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 8])
    (root / "models").mkdir()
    torch.save(without_heads(network.state_dict()), root / "models" / "model.pt")
    return root


@pytest.fixture
def fine_tune(package, monkeypatch):
    """Calls training as MONAI Label 0.8.5 does."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # a workflow's begin() replaces it

    def call(training: list, validation: list, run_id: str = "run") -> Path:
        handed = {"train#dataset#data": training, "validate#dataset#data": validation, "train#trainer#max_epochs": 2}
        small = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "steps_per_epoch": 2, "overlap": 0.0}
        run(run_id, config_file=FILES, bundle_root=str(package), device="cpu", **handed, **small)
        (folder,) = (path for path in (package / "runs").iterdir() if not path.name.startswith("."))
        return folder

    return call


@pytest.mark.parametrize(
    ("training", "validation"), [((0, 1), (2,)), ((0,), ())], ids=["three labelled", "one labelled"]
)
def test_labelled_cases_are_trained_on_and_new_weights_are_served(cohort, package, fine_tune, training, validation):
    before = (package / "models" / "model.pt").read_bytes()
    folder = fine_tune(labelled(cohort.dataset_dir, *training), labelled(cohort.dataset_dir, *validation))
    assert (package / "models" / "model.pt").read_bytes() == (folder / "model.pt").read_bytes() != before
    assert (package / "models" / monai_label.EXPORTED).read_bytes() == before


def test_empty_run_id_from_3d_slicer_trains_once(cohort, package, fine_tune):
    """MONAI then evaluates the whole file; a second training would refuse the first one's folder."""
    fine_tune(labelled(cohort.dataset_dir, 0), [], run_id="")
    assert (package / "models" / monai_label.EXPORTED).is_file()


def test_schedule_spans_the_epochs_requested_by_monai_label(read_config, cohort):
    handed = {"train#dataset#data": labelled(cohort.dataset_dir, 0), "validate#dataset#data": []}
    config = read_config(*FILES, **handed, **{"train#trainer#max_epochs": 7, "steps_per_epoch": 3, "device": "cpu"})
    assert config.get_parsed_content("budget").total_steps == 21
    assert config.get_parsed_content("optimizer").defaults["lr"] == pytest.approx(1e-4)  # a tenth of learning_rate


def test_missing_data_list_is_reported_without_a_server(read_config):
    config = read_config(*FILES)
    with pytest.raises(RuntimeError) as caught:
        config.get_parsed_content("data")
    assert isinstance(caught.value.__cause__, InputError)
    assert "datalist is not given" in str(caught.value.__cause__)


def test_packages_own_weights_are_kept_through_several_trainings(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "model.pt").write_text("exported")
    for text in ("first", "second"):
        (tmp_path / "tuned.pt").write_text(text)
        monai_label.publish_weights(tmp_path / "tuned.pt", tmp_path)
    assert (models / "model.pt").read_text() == "second"
    assert (models / monai_label.EXPORTED).read_text() == "exported"


def test_case_is_named_by_its_image_unless_listed():
    assert datalist.name_entry({"image": "/x/A_t1.nii.gz"})["case"] == "A_t1"
    assert (
        datalist.name_entry({"image": ["/x/A_t1.nii.gz", "/x/A_t2.nii.gz"], "case": "B", "patient": "C"})["case"] == "B"
    )
