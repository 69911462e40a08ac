"""The `look` command: its pages, the printed numbers and what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.__main__ import main
from bundle.cohort.training_view import read_training_config
from bundle.commands.look import look
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from scripts.data import datalist as lists
from scripts.data.normalization import METHODS
from scripts.errors import InputError
from tests.made import ROOT

CHANNELS = ("T1", "T1c", "T2", "FLAIR")


@pytest.fixture(scope="module")
def looked(cohort, tmp_path_factory) -> tuple[Path, str]:
    """The pages and the output of `look` with two scopes, for a list with a missing test case."""
    content = json.loads(cohort.datalist.read_text())
    missing = dict(content["training"][0], case="set-aside", patient="set-aside", split="test", label="missing.nii.gz")
    content["training"].append({key: value for key, value in missing.items() if key != "fold"})
    folder = tmp_path_factory.mktemp("look")
    (folder / "datalist.json").write_text(json.dumps(content))
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(ROOT)
        look(
            str(folder / "datalist.json"),
            out=str(folder / "pages"),
            dataset_dir=str(cohort.dataset_dir),
            task="phantom",
            normalize="percentile,clahe",
            scope="volume,dataset",
            cases=2,
            patches=3,
        )
    return folder / "pages", printed.getvalue()


def test_reads_each_file_once_for_all_pages(cohort, at_root, tmp_path, monkeypatch):
    reads, read_bytes = Counter(), Path.read_bytes

    def count(path):
        reads[path.name] += path.name.endswith(".nii.gz")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", count)
    look(
        str(cohort.datalist), out=str(tmp_path), dataset_dir=str(cohort.dataset_dir), task="phantom", normalize="zscore"
    )
    assert sum(reads.values()) == 5 * len(json.loads(cohort.datalist.read_text())["training"])
    assert max(reads.values()) == 1


def test_pages_cover_each_channel_and_scope_cohort_and_patches(looked):
    folder, printed = looked
    pages = [f"normalization_{name}_{scope}.png" for name in CHANNELS for scope in ("volume", "dataset")]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*pages, "cohort.png", "patches.png"])
    for page in folder.iterdir():
        assert f"written: {page}" in printed
        with Image.open(page) as opened:
            picture = np.asarray(opened.convert("L"))
        assert min(picture.shape) > 300
        assert picture.std() > 10, f"{page.name} is blank"


def test_clahe_has_no_dataset_column(looked):
    wide = {}
    for scope in ("volume", "dataset"):
        with Image.open(looked[0] / f"normalization_T1_{scope}.png") as page:
            wide[scope] = page.width
    assert wide["volume"] > wide["dataset"] + 100


def test_removal_of_artefacts_has_a_column_each(looked, cohort, tmp_path, at_root):
    (tmp_path / "denoise.yaml").write_text("denoise: true")
    quick = {"normalize": "percentile,clahe", "patches": 1, "task": f"phantom,{tmp_path / 'denoise.yaml'}"}
    look(str(cohort.datalist), out=str(tmp_path), dataset_dir=str(cohort.dataset_dir), **quick)
    wide = []
    for folder in (looked[0], tmp_path):
        with Image.open(folder / "normalization_T1_volume.png") as page:
            wide.append(page.width)
    assert wide[1] > wide[0] + 100


def test_the_printed_numbers_are_those_of_the_files(looked, cohort):
    enhancing, brain, cases, medians = 0, 0, 0, []
    for folder in sorted(cohort.dataset_dir.iterdir()):
        segmentation = folder / f"{folder.name}_seg.nii.gz"
        if segmentation.is_file():
            images = [np.asarray(nib.load(path).dataobj) for path in folder.glob("*.nii.gz") if path != segmentation]
            label = np.asarray(nib.load(segmentation).dataobj)
            enhancing += (label == 4).sum()
            cases += (label == 4).any()
            brain += (np.any(images, axis=0) | (label > 0)).sum()
            t1 = np.asarray(nib.load(folder / f"{folder.name}_t1.nii.gz").dataobj)
            medians.append(np.median(t1[t1 != 0]))
    printed = " ".join(looked[1].split())
    assert "4 of 4 cases" in printed  # the one set aside is not among them, and its files were not asked for
    ratio = (brain - enhancing) / enhancing
    assert f"region ET {100 * enhancing / brain:.2f} % 1 : {ratio:,.0f} {cases} of 4" in printed
    assert f"T1 {np.median(medians):.4g} ({min(medians):.4g} to {max(medians):.4g})" in printed
    assert "x 32 6 y 32 6 z 32 6" in printed
    assert "class imbalance: 1 : " in printed


def test_slices_need_no_task(tmp_path, at_root, capsys):
    phantom(str(tmp_path / "slices"), cases=4, dims=2, size=48, spacing=4.0)
    prepare(str(tmp_path / "slices"), out=str(tmp_path / "slices.json"), folds=2, picture=False, workers=1)
    config = read_training_config(lists.read_datalist(tmp_path / "slices.json"), None)
    assert len(config.get_parsed_content("patch_size")) == 2
    main(
        f"look {tmp_path / 'slices.json'} --dataset_dir {tmp_path / 'slices'} --out {tmp_path / 'pages'}"
        " --normalize zscore,histogram --cases 1 --patches 1 --cohort 2".split()
    )
    assert "2 of 4 cases" in capsys.readouterr().out
    assert len(list((tmp_path / "pages").glob("*.png"))) == 6


def test_background_neither_0_nor_in_every_corner_is_noted(tmp_path, cohort, at_root, capsys):
    content = lists.read_datalist(cohort.datalist)
    (tmp_path / "list.json").write_text(json.dumps(content))
    for name in [name for entry in content["training"] for name in lists.entry_files(entry)]:
        source = nib.load(cohort.dataset_dir / name)
        array = np.asarray(source.dataobj)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shifted = array - 30 if name.endswith(("_flair.nii.gz", "_t2.nii.gz")) else array
        if name.endswith("_flair.nii.gz"):
            shifted[0, 0, 0] = 0  # else it is made 0, as that of T2
        nib.save(nib.Nifti1Image(shifted.astype(np.int16), source.affine), tmp_path / name)
    look(str(tmp_path / "list.json"), out=str(tmp_path / "out"), task="phantom", normalize="zscore", cases=1, patches=1)
    printed = capsys.readouterr().out
    assert "of the voxels of FLAIR that are not 0 in " in printed
    assert "in 4 of 4 cases. If that is background, set it to 0" in printed
    assert "note: T" not in printed


def test_image_without_a_brain_is_shown_too(shared_data, tmp_path, at_root, capsys):
    sections = shared_data("isbi2012")
    prepare(str(sections), out=str(tmp_path / "list.json"), picture=False, workers=1)
    quick = {"normalize": "minmax", "cases": 1, "patches": 1, "cohort": 0}
    look(str(tmp_path / "list.json"), out=str(tmp_path / "out"), dataset_dir=str(sections), task="isbi2012", **quick)
    printed = " ".join(capsys.readouterr().out.split())
    assert "region membrane 21.9" in printed  # its authors say 22 % of the pixels
    assert "1 : 3.6" in printed


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"normalize": "zscores"}, "normalize is 'zscores' .did you mean zscore"),
        ({"scope": "patient"}, "normalize_scope is 'patient': expected slice, volume, dataset"),
        ({"normalize": "clahe", "scope": "dataset"}, "normalize clahe uses neighbourhoods"),
        ({"normalize": "hu_window,zscore"}, "needs values in HU, the others a background of 0: draw it by itself"),
        ({"normalize": ","}, "need a name each"),
        ({"task": "fantom"}, "there is no task 'fantom' .did you mean phantom"),
        ({"task": "phantom,absent.yaml"}, "--task absent.yaml does not exist"),
        ({"task": "msd_brain"}, "the data list has channels T1, T1c, T2, FLAIR, the config has FLAIR"),
        ({"cases": 0}, "--cases is 0: expected more than 0"),
        ({"seed": 1.5}, "--seed is 1.5"),
        ({"dataset_dir": "/nowhere"}, "is in the data list but not on disk: check dataset_dir"),
        ({"datalist": "absent.json"}, "the data list absent.json cannot be read"),
    ],
)
def test_a_wrong_option_ends_in_one_sentence_and_leaves_nothing(cohort, tmp_path, at_root, options, sentence):
    given = {"datalist": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), "task": "phantom"}
    with pytest.raises(InputError, match=sentence):
        look(**{**given, "out": str(tmp_path / "out"), **options})
    assert not (tmp_path / "out").exists()


def test_outside_the_root_the_message_names_it(cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"has no configs/train\.yaml: run this from the repository's root"):
        look(str(cohort.datalist))


def test_the_command_is_known_and_its_help_names_every_method(capsys):
    main([])
    assert "look" in capsys.readouterr().out
    assert all(method in look.__doc__ for method in METHODS)
