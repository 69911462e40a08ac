"""The `score` command: its tables, and one sentence for invalid input."""

import json
import math
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bundle.__main__ import main
from bundle.commands.prepare import prepare
from bundle.commands.score import parse_labels
from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.scoring.cohort import read_cases


@pytest.fixture
def predicted(cohort, tmp_path):
    """The labels of the synthetic cohort as predictions, one of them empty."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for number, entry in enumerate(lists.read_datalist(cohort.datalist)["training"]):
        label = nib.load(cohort.dataset_dir / entry["label"])
        voxels = np.asanyarray(label.dataobj).astype(np.uint8)
        nib.save(nib.Nifti1Image(voxels * (number > 0), label.affine), folder / f"{entry['case']}_seg.nii.gz")
    return folder


def score(cohort, predictions, out, *options):
    given = ["score", str(predictions), "--datalist", str(cohort.datalist), "--dataset_dir", str(cohort.dataset_dir)]
    main([*given, "--out", str(out), "--workers", "1", *options])


def refusal(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        score(*arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    return said


def partly(*arguments) -> None:
    with pytest.raises(SystemExit) as ended:
        score(*arguments)
    assert ended.value.code == 1


def harm(kind: str, file: Path) -> None:
    """Make a prediction that cannot be scored."""
    image = nib.load(file)
    voxels, affine = np.asanyarray(image.dataobj).copy(), image.affine
    if kind == "damaged":
        file.write_bytes(file.read_bytes()[:200])
    elif kind == "missing":
        file.unlink()
    elif kind == "orientation":
        nib.save(nib.Nifti1Image(voxels, affine).as_reoriented(np.array([[0, -1], [1, 1], [2, 1]])), file)
    else:
        voxels = {"shape": voxels[:, :, :-3], "label": np.where(voxels, 9, 0)}.get(kind, voxels)
        affine = affine @ np.diag([1.5, 1.5, 1.5, 1]) if kind == "spacing" else affine
        nib.save(nib.Nifti1Image(voxels.astype(np.uint8), affine), file)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("damaged", "cannot be read as an image"),
        ("missing", "no prediction: no file is named after"),
        ("shape", "has shape 32 x 32 x 29 where the label has 32 x 32 x 32: predict on the label's grid"),
        ("spacing", "has voxels of 9 x 9 x 9 mm where the label has 6 x 6 x 6 mm: predict on the label's grid"),
        ("orientation", "has axes that run to RPS where the label has LPS: predict on the label's grid"),
        ("label", "holds the label 9: the scheme has 0, 1, 2, 4"),
    ],
)
def test_one_bad_prediction_is_named_and_the_rest_is_scored(cohort, predicted, tmp_path, capsys, kind, said):
    bad = lists.read_datalist(cohort.datalist)["training"][2]["case"]
    harm(kind, predicted / f"{bad}_seg.nii.gz")
    partly(cohort, predicted, tmp_path / "out")
    printed = capsys.readouterr()
    assert bad in printed.out
    assert said in printed.out
    assert printed.err.endswith("1 of 4 cases could not be scored; the others are.\n")
    frame = read_cases(tmp_path / "out" / "cases.csv")
    assert frame.loc[frame["metric"] == "failed", "case"].tolist() == [bad]
    assert list(frame.query("metric == 'dice' and region == 'WT'")["value"]) == [0, 1, 1]


def test_an_empty_folder_is_refused_and_nothing_is_written(cohort, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "holds no image: expected one" in refusal(capsys, cohort, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_labelled_cases_are_scored_and_reported_without_test_patients(cohort, predicted, tmp_path, capsys):
    score(cohort, predicted, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "scoring labelled cases" in printed
    assert "4 cases of 4 patients" in printed
    frame = read_cases(tmp_path / "out" / "cases.csv")
    dice = frame[(frame["metric"] == "dice") & (frame["region"] == "WT")]["value"]
    assert list(dice) == [0, 1, 1, 1]
    assert math.inf in set(frame.loc[frame["metric"] == "hd95", "value"])


def test_suggested_command_runs_as_printed_and_writes_pages_with_pictures(
    cohort, predicted, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "scored here"
    monkeypatch.chdir(predicted.parent)
    score(cohort, predicted.name, out)
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[:4] == ["next:", "python", "-m", "bundle"]
    monkeypatch.chdir("/")  # the page needs the predictions from wherever it is drawn
    main(command[4:])
    assert "data:image/png" in (out / "report.html").read_text()


def test_test_patients_are_scored_where_the_list_has_them(cohort, predicted, tmp_path, capsys):
    content = json.loads(cohort.datalist.read_text())
    del content["training"][2]["fold"]
    content["training"][2]["split"] = "test"
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(content))
    score(cohort._replace(datalist=listed), predicted, tmp_path / "out")
    assert "scoring test cases" in capsys.readouterr().out
    assert set(read_cases(tmp_path / "out" / "cases.csv")["case"]) == {content["training"][2]["case"]}


def test_one_fold_is_scored_on_request(cohort, predicted, tmp_path):
    score(cohort, predicted, tmp_path / "out", "--part", "validation", "--fold", "1")
    assert read_cases(tmp_path / "out" / "cases.csv")["case"].nunique() == 1


def test_the_rules_for_metastases_can_be_asked_for(cohort, predicted, tmp_path):
    score(cohort, predicted, tmp_path / "out", "--dilations", "1", "--smallest", "2")
    rule = json.loads((tmp_path / "out" / "evaluation.json").read_text())["definitions"]["brats2023"]
    assert (rule["dilations"], rule["smallest"]) == (1, 2)


def test_wrong_folder_list_or_part_ends_in_one_sentence(cohort, predicted, tmp_path, capsys):
    out = tmp_path / "out"
    assert "is not a folder" in refusal(capsys, cohort, tmp_path / "nowhere", out)
    assert "--part is 'all': expected 'test', 'validation' or 'labelled'" in refusal(
        capsys, cohort, predicted, out, "--part", "all"
    )
    assert "has no fold 9" in refusal(capsys, cohort, predicted, out, "--part", "validation", "--fold", "9")
    assert "cannot be read" in refusal(capsys, cohort._replace(datalist=tmp_path / "no.json"), predicted, out)
    assert "on disk" in refusal(capsys, cohort._replace(dataset_dir=tmp_path), predicted, out)
    assert not out.exists()


def test_predictions_of_other_patients_are_refused_with_the_nearest_names(cohort, predicted, tmp_path, capsys):
    for file in predicted.iterdir():
        file.rename(predicted / f"other_{file.name}")
    said = refusal(capsys, cohort, predicted, tmp_path / "out")
    assert "no file is named after a case" in said
    assert "found other_" in said


def test_label_values_of_another_scheme_are_refused_and_then_renamed(cohort, predicted, tmp_path, capsys):
    for file in predicted.iterdir():
        image = nib.load(file)
        voxels = np.asanyarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(voxels == 4, 3, voxels).astype(np.uint8), image.affine), file)
    score(cohort, predicted, tmp_path / "out", "--labels", "3=4")
    frame = read_cases(tmp_path / "out" / "cases.csv")
    assert frame.query("metric == 'dice' and region == 'ET'")["value"].max() == 1
    capsys.readouterr()
    partly(cohort, predicted, tmp_path / "plain")  # the empty prediction holds no wrong value, so one case is scored
    assert '--labels "3=4"' in capsys.readouterr().out


@pytest.mark.parametrize(("text", "expected"), [("3=4", {3: 4}), ("3=4, 1=2", {3: 4, 1: 2}), ("", {})])
def test_label_pairs_are_understood(text, expected):
    assert parse_labels(text) == expected


@pytest.mark.parametrize("text", ["3", "3:4", "a=b", "3=4=5"])
def test_label_pairs_of_another_form_are_refused(text):
    with pytest.raises(InputError, match='expected pairs such as "3=4,1=2"'):
        parse_labels(text)


def test_sections_of_membranes_are_scored_from_folder_to_table(tmp_path, capsys):
    rng, folder = np.random.default_rng(0), tmp_path / "train"
    for part in ("image", "label", "predicted"):
        (folder / part).mkdir(parents=True)
    for number in range(6):
        membrane = np.zeros((64, 64), dtype=bool)
        membrane[::16] = membrane[:, ::16] = True
        image = np.where(membrane, 60, 160) + rng.integers(0, 60, membrane.shape)
        Image.fromarray(image.astype(np.uint8)).save(folder / "image" / f"{number}.png")
        for part, mask in (("label", membrane), ("predicted", ndimage.binary_dilation(membrane))):
            Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)).save(folder / part / f"{number}.png")
    listed = tmp_path / "list.json"
    prepare(str(folder), out=str(listed), task="isbi2012", folds=2, gap=0, picture=False, workers=1)
    given = ["score", str(folder / "predicted"), "--datalist", str(listed), "--dataset_dir", str(folder)]
    main([*given, "--out", str(tmp_path / "out"), "--workers", "1"])
    said = capsys.readouterr().out
    assert "by slice (6 of 2 patients)" in said
    assert "by patient (2): all slices as one volume" in said
    assert "rand_f" in said
    for table, count in (("cases", 6), ("patients", 2)):
        frame = read_cases(tmp_path / "out" / f"{table}.csv")
        scores = frame[frame["metric"] == "rand_f"]["value"]
        assert len(scores) == count
        assert scores.min() > 0.99  # as thick as it is, it keeps all cells apart
        assert frame[frame["metric"] == "dice"]["value"].max() < 0.6
