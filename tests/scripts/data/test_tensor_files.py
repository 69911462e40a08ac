import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from bundle.commands.score import score
from scripts.data import images
from scripts.data.loading import LoadImageChannelsd
from scripts.inference.scans import find_input_scans
from tests.made import refused, save_nifti
from tests.made.masks import save_masks
from tests.made.readers import read_by_all, refusal_of_all

AFFINE = np.diag([-1.0, -2.0, 3.0, 1.0])
LABEL = torch.zeros(6, 7, 8, dtype=torch.uint8)
LABEL[2:5, 2:5, 2:6] = 1
CHANNELS = ["T1", "T1c", "T2", "FLAIR"]
OPTIONS = {
    "label": "{case}.pt",
    "labels": "NCR=1,ED=2,ET=4",
    "regions": "WT=1+2+4,TC=1+4,ET=4",
    "picture": False,
    "workers": 1,
    "allow_unlabelled": True,
}


def save(path, **content):
    torch.save(content, path)
    return path


def as_tensors(entry, root, affine=True):
    """The image and label of a data list's entry of NIfTI files, as the content of a `.pt` file."""
    scans = [images.read_image(root / name) for name in entry["image"]]
    grid = {"affine": torch.from_numpy(scans[0].affine)} if affine else {}
    label = torch.from_numpy(images.read_image(root / entry["label"]).voxels.copy())
    return {"image": torch.from_numpy(np.stack([scan.voxels for scan in scans])), "label": label, **grid}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The data list of phantoms as NIfTI files and as `.pt` files, with the folder of each."""
    root = tmp_path_factory.mktemp("both")
    phantom(str(root / "nifti"), cases=2, size=24, spacing=6.0)
    prepare(str(root / "nifti"), out=str(root / "nifti.json"), folds=2, picture=False, workers=1)
    (root / "tensors").mkdir()
    for entry in json.loads((root / "nifti.json").read_text())["training"]:
        save(root / "tensors" / f"{entry['case']}.pt", **as_tensors(entry, root / "nifti"))
    every = ",".join(f"{name}={{case}}.pt" for name in CHANNELS)
    prepare(str(root / "tensors"), out=str(root / "tensors.json"), channels=every, folds=2, **OPTIONS)
    return [(json.loads((root / f"{kind}.json").read_text()), root / kind) for kind in ("nifti", "tensors")]


def test_a_dictionary_gives_every_reader_what_nifti_gives(tmp_path):
    save_nifti(tmp_path / "a.nii", LABEL.numpy(), AFFINE)
    tensors = save(tmp_path / "a.pt", image=LABEL[None], label=LABEL, affine=torch.from_numpy(AFFINE))
    expected = read_by_all(tmp_path / "a.nii")
    for reader, (voxels, affine) in read_by_all(tensors).items():
        np.testing.assert_array_equal(voxels, expected[reader][0])
        np.testing.assert_array_equal(affine, expected[reader][1])


def test_prepare_lists_dictionaries_with_the_same_splits_and_unit(both):
    (nifti, _), (tensors, _) = both
    assert [entry["image"] for entry in tensors["training"]] == [f"{e['case']}.pt" for e in nifti["training"]]
    assert [entry["label"] for entry in tensors["training"]] == [entry["image"] for entry in tensors["training"]]
    for key in ("unit", "channels"):
        assert tensors[key] == nifti[key]
    assert [entry["fold"] for entry in tensors["training"]] == [entry["fold"] for entry in nifti["training"]]


def test_training_reads_the_same_tensors_from_dictionaries(both):
    load = LoadImageChannelsd(["image", "label"], CHANNELS)
    (nifti, tensors) = (
        load({key: np.char.add(f"{root}/", listed["training"][0][key]).tolist() for key in ("image", "label")})
        for listed, root in both
    )
    for key in ("image", "label"):
        assert torch.equal(tensors[key], nifti[key])
        assert torch.equal(tensors[key].affine, nifti[key].affine)


def test_scores_of_dictionaries_are_those_of_nifti_files(both, tmp_path):
    tables = []
    for (listed, root), ending in zip(both, (".nii.gz", ".pt"), strict=True):
        masks = tmp_path / root.name
        masks.mkdir()
        for entry in listed["training"]:
            label = images.read_image(root / entry["label"])
            wrong = np.roll(label.voxels, 1, axis=0)
            images.write_like(masks / f"{entry['case']}{ending}", wrong, root / entry["label"])
        out = tmp_path / f"{root.name}_scores"
        lists = {"datalist": str(root.with_suffix(".json")), "dataset_dir": str(root)}
        score(str(masks), **lists, part="labelled", out=str(out), workers=1)
        table = (out / "cases.csv").read_text().replace("tensors", "nifti")
        tables.append(sorted(line for line in table.splitlines() if "dice" in line or "hd95" in line))
    assert tables[0] == tables[1]
    assert len(tables[0]) > 3


def test_inference_writes_a_dictionary_on_the_grid_of_its_image(both, tmp_path):
    (case, *_) = find_input_scans(both[1][1], CHANNELS, {})
    scan = images.read_image(case["image"], "image")
    mask = (scan.voxels[..., 0] > 0).astype(np.uint8)
    save_masks(tmp_path, case["image"], mask, probabilities=mask[None].astype(np.float32))
    for name in ("a.pt", "probabilities/a.nii.gz"):
        written = images.read_image(tmp_path / name)
        np.testing.assert_array_equal(written.voxels, mask)
        np.testing.assert_array_equal(written.affine, scan.affine)


def test_without_spacing_a_volume_is_measured_in_pixels(both, tmp_path):
    entry, root = both[0][0]["training"][0], both[0][1]
    for name in "ab":
        content = as_tensors(entry, root, affine=False)
        content["image"] = content["image"] + (name == "b") * (content["image"] > 0)
        save(tmp_path / f"{name}.pt", **content)
    every = ",".join(f"{name}={{case}}.pt" for name in CHANNELS)
    prepare(str(tmp_path), out=str(tmp_path / "list.json"), channels=every, folds=2, **OPTIONS)
    assert json.loads((tmp_path / "list.json").read_text())["unit"] == "pixel"


def test_spacing_of_two_axes_gives_the_size_of_pixels(tmp_path):
    image = images.read_image(save(tmp_path / "a.pt", label=LABEL[0], spacing=[0.5, 0.25]))
    assert image.spacing(2) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"image": np.zeros((1, 4, 5))}, "holds objects other than tensors and numbers"),
        ({"image": MetaTensor(torch.ones(1, 4, 5)), "label": MetaTensor(torch.ones(4, 5))}, "holds objects other"),
        ({"image": LABEL[None] * 1j, "label": LABEL * 1j}, "expected plain real numbers"),
        ({"scan": torch.ones(1, 4, 5)}, "has no key"),
        ({"image": torch.ones(4), "label": torch.ones(4)}, "as [4]: expected"),
        ({"image": LABEL[None], "label": LABEL, "spacing": [1.0, 1.0]}, "has the spacing [2]: expected numbers [3]"),
        ({"image": LABEL[None], "label": LABEL, "affine": torch.zeros(4, 4)}, "without spacing: its affine"),
        ({"image": LABEL[None], "label": LABEL, "affine": "RAS"}, "has the affine"),
    ],
)
def test_other_content_ends_in_one_sentence(tmp_path, content, sentence):
    path = save(tmp_path / "a.pt", **content)
    for key in ("image", "label"):
        assert sentence in refused(images.read_stored, path, key)


def test_a_list_of_tensors_is_not_a_dictionary(tmp_path):
    torch.save([LABEL], tmp_path / "a.pt")
    assert "has no key label, but list" in refused(images.read_image, tmp_path / "a.pt")


def test_a_label_on_other_axes_than_the_image_is_refused(tmp_path):
    path = save(tmp_path / "a.pt", image=LABEL[None], label=LABEL[0])
    assert "holds the label as [7, 8]: expected" in refused(images.read_image, path)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_damaged_files_are_refused_by_all_readers(tmp_path, damage):
    path = save(tmp_path / "a.pt", image=LABEL[None], label=LABEL)
    content = bytearray(path.read_bytes())
    content[content.index(bytes(LABEL.numpy())) + 5] ^= 1
    raw = path.read_bytes()
    path.write_bytes({"cut": raw[:-40], "flip": bytes(content), "empty": b"", "text": b"hello"}[damage])
    assert "is damaged or not a file of torch.save" in refusal_of_all(path)


def test_a_pointer_of_git_lfs_is_named_as_one(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert "is a pointer of Git LFS" in refusal_of_all(tmp_path / "a.pt")


def test_a_pickled_object_is_refused_and_its_code_never_runs(tmp_path):
    save(tmp_path / "a.pt", image=Touch(tmp_path / "touched"))
    assert "which could run code when loaded" in refusal_of_all(tmp_path / "a.pt")
    assert not (tmp_path / "touched").exists()


class Touch:
    """An object that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
