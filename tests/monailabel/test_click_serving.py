"""A real MONAI Label server corrects regions by clicks, next to the automatic model of the same package."""

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import run

from bundle.commands.export import export
from tests.made import at_repository_root
from tests.made.clicks import towards
from tests.made.monai_label import MODALITIES, Served, needs_server, serve

pytestmark = needs_server
PATIENTS = [f"BraTS2021_0000{number}" for number in range(5)]
TURN = np.array([[np.cos(0.26), -np.sin(0.26), 0, 0], [np.sin(0.26), np.cos(0.26), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
GRIDS = {
    "RAS": lambda image: nib.as_closest_canonical(image),
    "LPS": lambda image: image,
    "permuted": lambda image: turned(image, "ASR"),
    "rotated": lambda image: nib.Nifti1Image(np.asarray(image.dataobj), TURN @ image.affine),
    "anisotropic": lambda image: nib.Nifti1Image(
        np.asarray(image.dataobj)[:, :, ::2], towards("LPS", (6.0, 6.0, 12.0))
    ),
}


def turned(image: nib.Nifti1Image, axes: str) -> nib.Nifti1Image:
    """The same scan with its voxels in another order."""
    own, other = nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    return image.as_reoriented(nib.orientations.ornt_transform(own, other))


@pytest.fixture(scope="module")
def click_package(cohort, tmp_path_factory) -> Path:
    """The export of a network that was trained with clicks for seconds."""
    folder = tmp_path_factory.mktemp("clicks")
    files = ["configs/train.yaml", "configs/tasks/phantom.yaml", "configs/recipes/clicks.yaml"]
    with at_repository_root():
        run(
            "training", config_file=files, run_dir=str(folder / "run"), datalist=str(cohort.datalist), device="cpu",
            dataset_dir=str(cohort.dataset_dir), patch_size=[16, 16, 16], filters=[4, 8, 8], learning_rate=0.01,
            max_epochs=2, steps_per_epoch=10, ema_decay=0.5,
        )  # fmt: skip
        export(folder / "run", out=folder / "dist")
    (package,) = (path for path in (folder / "dist").iterdir() if path.is_dir())
    return package


@pytest.fixture(scope="module")
def served(click_package, cohort, tmp_path_factory) -> Iterator[Served]:
    """A server of the cohort, whose scans are ordered by quality; here they are named by their own names."""
    folder = tmp_path_factory.mktemp("served")
    with serve(click_package, cohort.dataset_dir, folder, "--order", "quality") as server:
        yield server


def voxels_of(answer) -> np.ndarray:
    """The mask of an answer to a click."""
    return np.asarray(answer[0].dataobj)


def test_one_package_is_served_as_two_models(served):
    info = served.ask("GET", "/info/")
    automatic, clicked = (info["models"][served.name + ending] for ending in ("", "_deepgrow"))
    assert (automatic["type"], clicked["type"]) == ("segmentation", "deepgrow")
    assert clicked["labels"] == {"wt": 1, "tc": 2, "et": 3}
    assert [*info["models"]] == [served.name, f"{served.name}_deepgrow"]  # Slicer takes the first for Next Sample
    assert [*info["trainers"]] == [served.name]


def test_scan_of_highest_entropy_is_offered_first(served):
    first = served.post("/activelearning/first", {})
    assert first["id"].startswith("001_BraTS2021_")
    masks = served.models.parents[4] / "masks"
    read = [json.loads(path.read_text()) for path in masks.glob("*/.records/*.json")]
    entropy = {
        record["case"]: np.mean([region["border_entropy"] for region in record["numbers"].values() if region])
        for record in read
    }
    assert first["id"] == f"001_{max(entropy, key=entropy.__getitem__)}"


@pytest.mark.parametrize("grid", GRIDS)
def test_mask_has_the_clicked_voxels_in_any_grid(served, tmp_path, grid):
    folder = tmp_path / "X"
    folder.mkdir()
    for name in MODALITIES:
        image = nib.load(served.patients / PATIENTS[0] / f"{PATIENTS[0]}_{name}.nii.gz")
        made = GRIDS[grid](image)
        nib.save(made, folder / f"X_{name}.nii.gz")
    whole = voxels_of(served.click(folder, "wt", foreground=[[0, 0, 0]]))
    inside, outside = (tuple(np.argwhere(whole == value)[7].tolist()) for value in (1, 0))
    mask, _ = served.click(folder, "wt", foreground=[outside], background=[inside])
    assert np.allclose(mask.affine, made.affine, atol=1e-4)
    after = np.asarray(mask.dataobj)
    assert after.shape == made.shape
    assert (after[outside], after[inside]) == (1, 0)
    assert {*np.unique(after)} == {0, 1}


def test_scans_in_another_voxel_order_get_the_same_masks(served, tmp_path):
    images = {name: nib.load(served.patients / PATIENTS[1] / f"{PATIENTS[1]}_{name}.nii.gz") for name in MODALITIES}
    masks = []
    for axes in ("LPS", "ASR"):
        folder = tmp_path / axes / "X"
        folder.mkdir(parents=True)
        for name, image in images.items():
            nib.save(turned(image, axes), folder / f"X_{name}.nii.gz")
        place = nib.affines.apply_affine(np.linalg.inv(turned(image, axes).affine) @ image.affine, [12, 17, 14])
        mask, _ = served.click(folder, "tc", foreground=[np.rint(place).astype(int).tolist()])
        masks.append(np.asarray(turned(mask, "LPS").dataobj))
    assert masks[0][12, 17, 14] == 1
    assert np.array_equal(*masks)


def test_the_second_click_uses_what_the_first_has_prepared(served):
    answers = [served.click(PATIENTS[2], "et", foreground=[[9, 9, 9], [15, 16, 17]][:n])[1] for n in (1, 2)]
    assert [params["kept"] for params in answers] == [False, True]
    assert answers[1]["windows"] > 0
    assert all(note.startswith("The click at [") for params in answers for note in params["notes"])


def test_two_annotators_in_turns_keep_their_own_clicks(served):
    here, there = [16, 16, 16], [10, 20, 12]
    first = served.click(PATIENTS[3], "tc", "anna", foreground=[here])
    other = served.click(PATIENTS[3], "tc", "ben", foreground=[there])
    assert voxels_of(first)[tuple(here)] == voxels_of(other)[tuple(there)] == 1
    again = served.click(PATIENTS[3], "tc", "anna", foreground=[here])
    assert np.array_equal(voxels_of(again), voxels_of(first))
    assert again[1]["windows"] == 0  # nothing was to be run


def test_wrong_clicks_get_422_and_a_sentence(served, tmp_path):
    one_channel = served.patients / PATIENTS[0] / f"{PATIENTS[0]}_t1.nii.gz"
    copy = tmp_path / "scene.nii.gz"
    copy.write_bytes(one_channel.read_bytes())
    model, place = f"{served.name}_deepgrow", [[16, 16, 16]]
    for sentence, given in {
        "expected the region to click on, one of wt, tc, et": {"label": "ncr", "foreground": place},
        "lies outside the scan": {"label": "tc", "foreground": [[40, 16, 16]]},
        "no click on TC is given": {"label": "tc", "foreground": [], "background": []},
        "hold 1 channels: expected 4": {"label": "tc", "foreground": place, "files": {"file": copy}},
    }.items():
        given = {"image": PATIENTS[0] if "files" not in given else "", **given}
        status, content = served.refuse(model=model, device="cpu", **given)
        assert status == 422
        assert sentence in content["detail"]


def test_training_of_the_automatic_model_reaches_the_clicks(served):
    request = {"foreground": [[16, 16, 16]], "background": [[5, 5, 5]]}
    before = served.click(PATIENTS[1], "wt", **request)
    names = {name.partition("_")[2]: name for name in served.ask("GET", "/datastore/?output=all")["objects"]}
    for patient in PATIENTS[:2]:
        label = served.patients / patient / f"{patient}_seg.nii.gz"
        served.ask("PUT", f"/datastore/label?image={names[patient]}&tag=final", files={"label": label})
    served.post(f"/train/{served.name}", {"max_epochs": 1, "device": "cpu"})
    served.await_end("/train/")
    after = served.click(PATIENTS[1], "wt", **request)
    assert not after[1]["kept"]
    assert not np.array_equal(voxels_of(before), voxels_of(after))
    assert (served.models / "model_exported.pt").is_file()
    linked = served.models.parents[1] / f"{served.name}_deepgrow" / "models" / "model.pt"
    assert linked.samefile(served.models / "model.pt")
