"""Several runs as one in `segment`, `evaluate` and `export`, within a configuration and across."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import run

from bundle.commands.evaluate import evaluate
from bundle.commands.export import export
from bundle.commands.segment import segment
from bundle.studies import averaging
from bundle.studies.members import find_configurations, name_weights
from scripts.files import write_text
from tests.bundle.studies.conftest import Studies
from tests.made import refused, save_nifti

pytestmark = pytest.mark.usefixtures("at_root")
QUICK = {"device": "cpu", "overlap": "0.0"}


def mask_of(folder: Path) -> np.ndarray:
    (file,) = folder.glob("*.nii.gz")
    return np.asarray(nib.load(file).dataobj)


def probabilities_of(folder: Path) -> np.ndarray:
    return np.asarray(nib.load(next((folder / "probabilities").glob("*.nii.gz"))).dataobj)


def segmented(studies: Studies, out: Path, *sources: Path, **settings) -> Path:
    """Masks of the scan, as `segment` makes them, in this process."""
    configurations = find_configurations(sources)
    given = {"device": "cpu", "overlap": 0.0, "input": str(studies.scan), **settings}
    if len(configurations) > 1:
        averaging.segment_with_several(configurations, given, out, resume=given.pop("resume", False))
    else:
        files = ["configs/inference.yaml", str(configurations[0][0] / "settings.yaml")]
        run("inferring", config_file=files, output_dir=str(out), **given, **name_weights(configurations[0]))
    return out


def twin(run: Path, folder: Path, **changed) -> Path:
    """A copy of a run, with settings that make it another configuration without changing its masks."""
    shutil.copytree(run, folder)
    file = folder / "settings.yaml"
    settings = yaml.safe_load(file.read_text())
    (sha256,) = settings["checkpoint_sha256"].values()
    model = (folder / "model.pt").as_posix()
    settings |= {"checkpoint": model, "checkpoint_sha256": {model: sha256}, **changed}
    write_text(file, yaml.safe_dump(settings, sort_keys=False))
    return folder


@pytest.mark.parametrize("name", ["a", "c"], ids=["regions", "classes"])
@pytest.mark.parametrize("across", [False, True], ids=["within", "across"])
def test_two_identical_members_equal_the_member(studies, name, across, tmp_path):
    one = studies.folder / name / "fold0"
    other = twin(one, tmp_path / "twin", **({"percentiles": [1.0, 99.0]} if across else {}))
    assert len(find_configurations([one, other])) == 1 + across
    alone = segmented(studies, tmp_path / "alone", one, save_probabilities=True)
    both = segmented(studies, tmp_path / "both", one, other, save_probabilities=True)
    assert 0 < (mask_of(alone) > 0).mean() < 0.9
    assert np.array_equal(mask_of(both), mask_of(alone))
    assert np.array_equal(probabilities_of(both), probabilities_of(alone))


def test_folds_of_a_cross_validation_are_averaged_as_logits(studies, tmp_path):
    folds = [studies.folder / "a" / f"fold{k}" for k in (0, 1)]
    keep = {"save_probabilities": True, "tta": True}
    each = [np.float64(probabilities_of(segmented(studies, tmp_path / f.name, f, **keep))) for f in folds]
    with np.errstate(divide="ignore"):  # outside the brain
        mean = sum(np.log(p / (1 - p)) for p in each) / 2
    found = probabilities_of(segmented(studies, tmp_path / "cv", studies.folder / "a", **keep))
    brain = (found > 1e-6) & (found < 1 - 1e-6)
    assert np.allclose(found[brain], 1 / (1 + np.exp(-mean[brain])), atol=1e-4)


def test_configurations_are_averaged_as_probabilities(studies, tmp_path):
    sources = [studies.folder / name for name in ("a", "b")]
    each = [probabilities_of(segmented(studies, tmp_path / s.name, s, save_probabilities=True)) for s in sources]
    both = segmented(studies, tmp_path / "both", *sources, save_probabilities=True, min_component_ml={})
    assert np.array_equal(probabilities_of(both), np.mean(each, axis=0, dtype=np.float32))
    assert np.array_equal(mask_of(both) > 0, (np.mean(each, axis=0, dtype=np.float32) > 0.5).any(-1))
    assert not (both / averaging.WORK).exists()


@pytest.mark.parametrize(("shape", "axes"), [((5, 6, 7, 1), 3), ((5, 6, 7, 2), 3), ((5, 6, 1), 2), ((5, 6, 1, 1), 3)])
def test_probabilities_of_any_number_of_regions_are_averaged(shape, axes, tmp_path):
    voxels = np.random.default_rng(0).random(shape, dtype=np.float32)
    files = [save_nifti(tmp_path / f"{k}.nii.gz", voxels / (k + 1), np.diag([1.0, 2, 3, 1])) for k in range(2)]
    mean = averaging.average_probabilities(files, axes)
    assert np.allclose(mean.numpy(), np.moveaxis(voxels * 0.75, -1, 0))


def test_killed_average_resumes_with_what_is_there(studies, tmp_path, monkeypatch, capsys):
    sources = [studies.folder / name for name in ("a", "b")]
    whole = mask_of(segmented(studies, tmp_path / "whole", *sources))
    with monkeypatch.context() as patch:
        patch.setattr(averaging, "average_probabilities", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            segmented(studies, tmp_path / "out", *sources)
    made = [*(tmp_path / "out" / averaging.WORK).rglob("*.nii.gz")]
    assert len(made) == 4  # masks and probabilities of each
    times, read = {file: file.stat().st_mtime_ns for file in made}, averaging.average_probabilities

    def unchanged(files, axes):
        assert {file: file.stat().st_mtime_ns for file in made} == times
        return read(files, axes)

    monkeypatch.setattr(averaging, "average_probabilities", unchanged)
    for _ in range(2):
        segmented(studies, tmp_path / "out", *sources, resume=True)
    assert "1 of 1 cases are already in" in capsys.readouterr().out
    assert np.array_equal(mask_of(tmp_path / "out"), whole)


def test_full_disk_is_refused_before_anything_is_written(studies, tmp_path, monkeypatch):
    monkeypatch.setattr(averaging.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**5))
    message = refused(segmented, studies, tmp_path / "out", studies.folder / "a", studies.folder / "b")
    assert "0.8 MB for the probabilities of 1 cases, and 0.1 MB are free" in message  # 32^3 x 3 regions x 2 x 4 bytes
    assert not (tmp_path / "out").exists()


def test_configurations_of_other_outputs_are_refused(studies, tmp_path):
    message = refused(segmented, studies, tmp_path / "out", studies.folder / "a", studies.folder / "c")
    assert "differ in decision: runs are averaged only if they segment the same regions" in message


def test_an_unreadable_case_is_refused_and_the_others_averaged(studies, tmp_path):
    scans = tmp_path / "scans"
    shutil.copytree(studies.scan, scans / studies.scan.name)
    shutil.copytree(studies.scan, scans / "broken")
    for file in (scans / "broken").iterdir():
        file.rename(file.with_name(file.name.replace(studies.scan.name, "broken")))
    broken = next((scans / "broken").glob("*_t1.nii*"))
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(SystemExit) as ended:
        segment(studies.folder / "a", scans, ensemble=[studies.folder / "b"], out=tmp_path / "out", **QUICK)
    assert ended.value.code == 1
    assert [file.name for file in (tmp_path / "out").glob("*.nii.gz")] == [f"{studies.scan.name}.nii.gz"]


@pytest.mark.parametrize("sources", ["a", "ab"], ids=["within", "across"])
def test_evaluation_of_an_ensemble_counts_the_patients_of_all_members(studies, sources, tmp_path, capsys):
    first, *others = (studies.folder / name for name in sources)
    for part, said in {
        "test": "1 of 1 evaluated patients took no part in training",
        "labelled": "6 of 7 evaluated patients were used for training",
    }.items():
        out = tmp_path / part
        evaluate(first, ensemble=others, part=part, out=out, score_workers="1", **QUICK)
        assert said in capsys.readouterr().out
        about = json.loads((out / "evaluation.json").read_text())["about"]
        assert about["checkpoint"].count("model.pt") == 2 * len(sources)
    assert len(about["patients"]["training"]) == 6


def test_a_selection_names_the_runs(studies, tmp_path):
    write_text(tmp_path / "selected.yaml", yaml.safe_dump({"ensemble": [str(studies.folder / "a")]}))
    whole = segmented(studies, tmp_path / "whole", studies.folder / "a")
    assert np.array_equal(mask_of(segmented(studies, tmp_path / "out", tmp_path / "selected.yaml")), mask_of(whole))


def test_missing_fold_of_a_cross_validation_is_refused(studies, tmp_path):
    shutil.copytree(studies.folder / "a", tmp_path / "a", ignore=shutil.ignore_patterns("fold1"))
    assert "a/fold1 has no weights yet" in refused(segmented, studies, tmp_path / "out", tmp_path / "a")
    assert "is not a run: expected" in refused(segmented, studies, tmp_path / "out", tmp_path)


def test_package_of_an_ensemble_has_one_network_of_all_members(studies, tmp_path):
    export(studies.folder / "a", out=tmp_path / "dist", formats="ts")
    (package,) = (path for path in (tmp_path / "dist").iterdir() if path.is_dir())
    names = torch.load(package / "models" / "model.pt", weights_only=True).keys()
    assert {name.split(".")[1] for name in names} == {"0", "1"}
    metadata = json.loads((package / "configs" / "metadata.json").read_text())
    assert metadata["description"].startswith("A mean of 2 networks, each a plain U-Net")
    assert {*metadata["compared"]["formats"]} == {"model.pt", "model.safetensors", "model.ts"}
    card = (package / "docs" / "README.md").read_text()
    assert "The mean of the logits of 2 networks, trained one by one; each is a `DynUNet`" in card
    assert "Trained on 6 patients, validated on 0 other patients" in card


def test_export_of_several_configurations_is_refused(studies, tmp_path):
    message = refused(export, studies.folder / "a", ensemble=[studies.folder / "b"], out=tmp_path / "dist")
    assert "are of different configurations (filters): a package holds one network" in message
    assert not (tmp_path / "dist").exists()
