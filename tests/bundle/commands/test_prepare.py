import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.cohort.case_views import view_case
from bundle.commands.phantom import phantom
from bundle.commands.prepare import prepare
from scripts.data import datalist, pictures
from scripts.data.case_files import Case
from scripts.errors import InputError
from tests.made import ROOT

SMALL = {"size": 32, "spacing": 6.0}
QUIET = {"picture": False}


@pytest.fixture(scope="module")
def adults(tmp_path_factory):
    """Five labelled cases in the layout of BraTS 2023; the second and the third are one patient."""
    folder = tmp_path_factory.mktemp("phantoms") / "adults"
    phantom(str(folder), cases=5, layout="brats2023", **SMALL)
    return folder


@pytest.fixture
def mine(adults, tmp_path):
    """A copy of them that a test may break."""
    return Path(shutil.copytree(adults, tmp_path / "mine"))


def file_of(folder, channel, case=0):
    return sorted(folder.glob(f"*/*-{channel}.nii.gz"))[case]


def rewrite(path, change):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


@pytest.fixture
def reads(monkeypatch):
    """How often each file was read."""
    counts, read_bytes = Counter(), Path.read_bytes

    def count(path):
        counts[path.name] += 1
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", count)
    return counts


def test_reads_each_file_once_for_checks_and_picture(adults, tmp_path, reads):
    prepared(adults, tmp_path / "list.json", picture=True)
    assert (tmp_path / "list.png").is_file()
    assert len(reads) == 5 * 5
    assert set(reads.values()) == {1}


def prepared(folder, out, **options):
    prepare(str(folder), out=str(out), **{**QUIET, "folds": 2, **options})
    return datalist.read_datalist(out)


def truncate(folder):
    path = file_of(folder, "t1c")
    path.write_bytes(path.read_bytes()[:-2000])


def put_nan(folder):
    rewrite(file_of(folder, "t1c"), lambda a: np.where(np.indices(a.shape)[0] == 16, np.nan, a))


def shift(folder):
    rewrite(file_of(folder, "t1c"), lambda a: np.roll(a, 4, axis=0))  # 24 mm


# What nnU-Net's own check was tried with: it stopped at the last four of these ten
BROKEN = {
    "truncated": (truncate, r"t1c.nii.gz cannot be read as an image \(it is truncated"),
    "NaN": (put_nan, r"t1c.nii.gz: channel T1c holds 1024 voxels that are NaN"),
    "empty label": (lambda f: rewrite(file_of(f, "seg"), np.zeros_like), r"seg.nii.gz is empty: it labels no voxel"),
    "shifted channel": (shift, r"t1c.nii.gz: channel T1c does not lie on the other channels"),
    "copied channel": (
        lambda f: shutil.copy(file_of(f, "t1n"), file_of(f, "t1c")),
        r"t1c.nii.gz: channel T1c is a copy of channel T1 ",
    ),
    "channel of zeros": (
        lambda f: rewrite(file_of(f, "t1c"), np.zeros_like),
        r"t1c.nii.gz: channel T1c holds nothing but the value 0",
    ),
    "missing channel": (lambda f: file_of(f, "t1c").unlink(), r"lacks channel T1c: expected BraTS-GLI-00000-000/"),
    "value outside the scheme": (
        lambda f: rewrite(file_of(f, "seg"), lambda a: np.where(a == 3, 4, a)),
        r"seg.nii.gz holds the value 4 \(\d+ voxels\), which is not in label scheme brats2023 .*--task brats2024_post",
    ),
    "label of another shape": (
        lambda f: rewrite(file_of(f, "seg"), lambda a: a[:, :, 1:]),
        r"seg.nii.gz has shape 32 x 32 x 31, not the 32 x 32 x 32",
    ),
    "missing label": (lambda f: file_of(f, "seg").unlink(), r"case BraTS-GLI-00000-000 has no label, but others"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_of_ten_broken_sets_is_refused_with_its_sentence(mine, tmp_path, capsys, fault):
    spoil, sentence = BROKEN[fault]
    spoil(mine)
    with pytest.raises(InputError, match=r"1 of 5 cases are bad, as listed above: correct them, or .*--skip_bad"):
        prepare(str(mine), out=str(tmp_path / "list.json"), folds=2)
    listed = capsys.readouterr().err
    assert "BraTS-GLI-00000-000:\n  - " in listed
    assert len([line for line in listed.splitlines() if line.startswith("  - ")]) == 1
    assert re.search(sentence, listed)
    assert list(tmp_path.glob("[!.]*")) == [mine]


def test_bad_cases_are_listed_together_and_excluded_on_request(mine, tmp_path, capsys):
    truncate(mine)
    rewrite(file_of(mine, "seg", 3), np.zeros_like)
    with pytest.raises(InputError, match="2 of 5 cases are bad"):
        prepared(mine, tmp_path / "list.json")
    assert capsys.readouterr().err.count("  - ") == 2
    made = prepared(mine, tmp_path / "list.json", skip_bad=True)
    assert [e["case"] for e in made["training"]] == [f"BraTS-GLI-{n}" for n in ("00001-000", "00001-001", "00003-000")]
    assert (
        "left out BraTS-GLI-00000-000: BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz cannot be" in made["notes"][1]
    )
    assert "left out BraTS-GLI-00002-000" in capsys.readouterr().out
    assert not any("00000-000" in name for name in made["hashes"])


def test_list_without_a_valid_case_is_not_written(mine, tmp_path):
    for path in mine.glob("*/*-seg.nii.gz"):
        rewrite(path, np.zeros_like)
    with pytest.raises(InputError, match=r"5 of 5 cases are bad, as listed above: correct them\."):
        prepared(mine, tmp_path / "list.json", skip_bad=True)
    assert len(prepared(mine, tmp_path / "list.json", allow_empty=True)["training"]) == 5


@pytest.mark.parametrize(
    ("layout", "recognised", "scheme", "options"),
    [
        ("brats2021", "files by the patterns of brats", "brats2021", {"allow_unlabelled": True}),
        ("brats2023", "files by the patterns of brats2023", "brats2023", {"allow_unlabelled": True}),
        ("msd", "Medical Segmentation Decathlon", "msd_task01", {}),
        ("nnunet", "nnU-Net raw", "brats2023", {}),
    ],
)
def test_each_layout_gives_a_list_that_training_accepts(tmp_path, capsys, layout, recognised, scheme, options):
    phantom(str(tmp_path / "set"), cases=4, layout=layout, unlabelled=1, **SMALL)
    made = prepared(tmp_path / "set", tmp_path / "list.json", **options)
    datalist.check_datalist(made, tmp_path / "set")
    assert (made["layout"], made["label_scheme"], made["dimensions"], made["unit"]) == (recognised, scheme, 3, "mm")
    assert (len(made["training"]), len(made["testing"])) == (4, 1)
    said = capsys.readouterr().out
    assert f"{recognised}, 5 cases" in said
    assert "1 case has no label: it goes to `testing`." in said


def test_a_folder_without_any_label_is_a_testing_list(mine, tmp_path):
    for path in mine.glob("*/*-seg.nii.gz"):
        path.unlink()
    made = prepared(mine, tmp_path / "list.json")
    assert (made["training"], len(made["testing"])) == ([], 5)
    assert all("label" not in entry for entry in made["testing"])


def test_the_same_folder_and_seed_give_the_same_bytes(adults, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepared(adults, tmp_path / f"{name}.json", seed=seed)
    assert (
        (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes() != (tmp_path / "c.json").read_bytes()
    )


def test_two_visits_of_a_patient_share_a_fold(adults, tmp_path):
    for seed in range(3):
        made = prepared(adults, tmp_path / f"{seed}.json", seed=seed, folds=4)
        visits = [entry for entry in made["training"] if entry["patient"] == "BraTS-GLI-00001"]
        assert len(visits) == 2
        assert visits[0]["fold"] == visits[1]["fold"]


def test_identical_voxels_under_two_names_are_one_patient_and_reported(mine, tmp_path, capsys):
    twin = mine / "BraTS-GLI-00999-000"
    twin.mkdir()
    for path in (mine / "BraTS-GLI-00002-000").iterdir():
        nib.save(nib.load(path), twin / path.name.replace("00002-000", "00999-000"))
    made = prepared(mine, tmp_path / "list.json", folds=4)
    found = {entry["case"]: entry for entry in made["training"]}
    assert found["BraTS-GLI-00999-000"]["patient"] == "BraTS-GLI-00002"
    assert found["BraTS-GLI-00999-000"]["fold"] == found["BraTS-GLI-00002-000"]["fold"]
    note = "00002-000 and BraTS-GLI-00999-000 have the same voxels in T1, T1c, T2, FLAIR: treated as one patient."
    assert made["notes"][1] == f"BraTS-GLI-{note}"
    assert note in capsys.readouterr().out


def test_patients_can_be_read_from_other_names(adults, tmp_path):
    made = prepared(adults, tmp_path / "list.json", group_by=r"-(\d{3})$")
    assert {entry["patient"] for entry in made["training"]} == {"000", "001"}
    with pytest.raises(InputError, match="does not match 4 of 5 cases"):
        prepared(adults, tmp_path / "other.json", group_by="(00003)")


def test_held_out_test_patients_are_in_no_fold(adults, tmp_path):
    made = prepared(adults, tmp_path / "list.json", test=0.25)
    aside = [entry for entry in made["training"] if entry.get("split") == "test"]
    assert len({entry["patient"] for entry in aside}) == 1
    assert not any("fold" in entry for entry in aside)
    datalist.check_datalist(made, adults)


def renamed(adults, folder):
    """The cases as an own study might store them, lesions as 0 and 1."""
    for case in sorted(adults.iterdir()):
        target = folder / "scans" / case.name.replace("BraTS-GLI-", "P")
        target.mkdir(parents=True)
        shutil.copy(case / f"{case.name}-t1c.nii.gz", target / "post_gd.nii.gz")
        shutil.copy(case / f"{case.name}-t2f.nii.gz", target / "dark_fluid.nii.gz")
        shutil.copy(case / f"{case.name}-seg.nii.gz", target / "mask.nii.gz")
        rewrite(target / "mask.nii.gz", lambda a: np.where(a > 0, 0.99999997, 0))
    return folder


PATTERNS = {"channels": "T1c={case}/post_gd.nii*,FLAIR={case}/dark*.nii.gz", "label": "{case}/mask.nii.gz"}


def test_any_other_folder_is_read_by_patterns_per_channel(adults, tmp_path, capsys):
    folder = renamed(adults, tmp_path / "study")
    made = prepared(folder, tmp_path / "list.json", labels="lesion=1", group_by=r"(P\d+)", **PATTERNS)
    assert (made["channels"], made["label_scheme"]) == (["T1c", "FLAIR"], "custom")
    assert (made["labels"], made["regions"], made["labels_out"]) == ({"lesion": 1}, {"lesion": [1]}, {"lesion": 1})
    assert made["training"][0]["image"] == [f"scans/P00000-000/{name}.nii.gz" for name in ("post_gd", "dark_fluid")]
    assert made["training"][0]["patient"] == "P00000"
    assert "0.99999997 and the like, read as 1: P00000-000" in capsys.readouterr().out


def test_regions_and_the_name_of_a_scheme_can_be_given(adults, tmp_path):
    folder = renamed(adults, tmp_path / "study")
    options = {"labels": "core=1,rest=2", "regions": "WT=1+2,TC=1", "label_scheme": "ours"}
    made = prepared(folder, tmp_path / "list.json", **options, **PATTERNS)
    assert (made["regions"], made["label_scheme"]) == ({"WT": [1, 2], "TC": [1]}, "ours")
    assert "labels_out" not in made
    assert any("no case has the label rest=2" in note for note in made["notes"])


def test_the_files_of_a_task_can_be_replaced_by_patterns(adults, tmp_path):
    patterns = "T1={case}-t1n.nii.gz,T1c={case}-t1c.nii.gz,FLAIR={case}-t2f.nii.gz,T2={case}-t2w.nii.gz"
    made = prepared(adults, tmp_path / "list.json", task="brats2023", channels=patterns)
    assert made["channels"] == ["T1", "T1c", "T2", "FLAIR"]
    assert [Path(name).name[-10:-7] for name in made["training"][0]["image"]] == ["t1n", "t1c", "t2w", "t2f"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channels": "T1c"}, "--channels is 'T1c': expected NAME=VALUE"),
        (
            {"channels": "T1c={case}/gd.nii"},
            r"no file in .* fits channel T1c .*has 25 .nii, .nii.gz, .nrrd or .mha files, such as",
        ),
        ({"channels": "T1c=gd.nii"}, "has no {case}"),
        (
            {"channels": "T1c={case}-t1c.nii.gz", "label": "{case}-sgm.nii.gz", "labels": "a=1"},
            "fits the label's pattern",
        ),
        ({"channels": "T1c={case}-t1c.nii.gz", "label": "{case}-seg.nii.gz"}, "the labels need names"),
        ({"channels": "T1c={case}-t1c.nii.gz", "labels": "a=x"}, "--labels has the value 'x'"),
        ({"channels": "T1c={case}-t1c.nii.gz", "labels": "a=1", "regions": "b=2"}, "--regions has the value 2"),
        ({"channels": "T1c={case}-t1c.nii.gz", "task": "brats"}, "task brats needs T1, T1c, T2, FLAIR"),
        ({"label": "{case}-seg.nii.gz"}, "need --channels: "),
        ({"labels": "a=1", "task": "brats"}, "are those of task brats"),
        ({"task": "brats2032"}, "did you mean brats2023"),
        ({"folds": 9}, "4 labelled patients are too few for 9 folds: give --folds 4"),
        ({"folds": 1}, "--folds is 1"),
        ({"folds": "five"}, "--folds is 'five'"),
        ({"test": 20}, "--test is 20: expected less than 1"),
        ({"test": True}, "--test is True"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_a_wrong_option_is_answered_with_what_to_give(adults, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        prepared(adults, tmp_path / "list.json", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_list_is_not_overwritten_unless_asked(adults, tmp_path):
    (tmp_path / "list.json").write_text("precious")
    with pytest.raises(InputError, match=r"is there already: .*--overwrite"):
        prepared(adults, tmp_path / "list.json")
    assert (tmp_path / "list.json").read_text() == "precious"
    assert len(prepared(adults, tmp_path / "list.json", overwrite=True)["training"]) == 5


@pytest.mark.parametrize(
    ("out", "sentence"), [("list", "ends in .json"), ("file/list.json", "is not a folder that you may")]
)
def test_unwritable_list_is_refused_before_the_long_work(adults, tmp_path, capsys, out, sentence):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=sentence):
        prepared(adults, tmp_path / out)
    assert "checking" not in capsys.readouterr().err


def test_a_case_in_other_units_is_noted(mine, tmp_path):
    rewrite(file_of(mine, "t1c", 3), lambda a: (a / a.max() * 32767).astype(np.int16))
    for i in (0, 1, 2, 4):
        rewrite(file_of(mine, "t1c", i), lambda a: (a / a.max() * 800).astype(np.int16))
    notes = prepared(mine, tmp_path / "list.json")["notes"]
    assert [
        note for note in notes if "intensity of T1c: far from the median of the cohort in BraTS-GLI-00002-000 (" in note
    ]


def test_label_found_in_no_case_questions_the_scheme(adults, tmp_path):
    notes = prepared(adults, tmp_path / "list.json", task="brats2024_post")["notes"]
    (note,) = [note for note in notes if "no case has the label RC=4" in note]
    assert "(brats2023 would fit these values too" in note


def test_picture_shows_every_layout_in_one_orientation_on_black(tmp_path):
    views = {}
    for layout in ("brats2021", "msd"):
        phantom(str(tmp_path / layout), cases=2, layout=layout, **SMALL)
        made = prepared(tmp_path / layout, tmp_path / f"{layout}.json", picture=True)
        assert (tmp_path / f"{layout}.png").read_bytes().startswith(b"\x89PNG")
        entry = made["training"][0]
        images = [tmp_path / layout / name for name in np.atleast_1d(entry["image"])]
        view = view_case(Case("a", images, tmp_path / layout / entry["label"], stacked=layout == "msd"))
        views[layout] = dict(zip(made["channels"], view["image"], strict=True))
    np.testing.assert_array_equal(views["brats2021"]["T1c"], views["msd"]["t1gd"])
    stored = nib.load(images[0]).get_fdata()[..., 0]  # LPS
    np.testing.assert_array_equal(views["msd"]["FLAIR"], stored[::-1, ::-1])
    rewrite(tmp_path / "brats2021/BraTS2021_00000/BraTS2021_00000_t1.nii.gz", lambda a: a.astype(np.float32) - 100)
    scored = view_case(Case("a", [tmp_path / "brats2021/BraTS2021_00000/BraTS2021_00000_t1.nii.gz"]))
    np.testing.assert_array_equal(scored["image"][0], views["brats2021"]["T1"])


def test_command_writes_a_data_list_and_a_case_picture(adults, tmp_path):
    command = [
        sys.executable,
        "-m",
        "bundle",
        "prepare",
        str(adults),
        "--out",
        str(tmp_path / "list.json"),
        "--folds",
        "2",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fold 1" in done.stdout
    assert "brats2024_post also fits" in done.stdout
    assert (tmp_path / "list.png").read_bytes().startswith(b"\x89PNG")


def test_command_reports_broken_set_in_sentences_with_exit_code_2(mine, tmp_path):
    truncate(mine)
    command = [
        sys.executable,
        "-m",
        "bundle",
        "prepare",
        str(mine),
        "--out",
        str(tmp_path / "list.json"),
        "--folds",
        "2",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: 1 of 5 cases are bad" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "list.json").exists()


def test_the_command_starts_without_torch():
    code = "import sys, bundle.commands.prepare, bundle.drawing.slices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_real_gliomas_of_2015_are_read_by_their_task(shared_data, tmp_path):
    made = prepared(shared_data("brats2015"), tmp_path / "list.json", task="brats2015")
    assert [entry["patient"] for entry in made["training"]] == [f"brats_2013_pat000{i}" for i in range(1, 6)]
    assert made["notes"] == []


def test_real_ms_patients_are_read_by_their_task(shared_data, tmp_path):
    made = prepared(shared_data("open-ms"), tmp_path / "list.json", task="open_ms")
    assert [entry["case"] for entry in made["training"]] == ["patient07", "patient19"]
    assert made["label_scheme"] == "open_ms"


# ---- pictures and slices -------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def picture(path, label=False, empty=False, shape=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(30, 200, (*shape, 3) if path.suffix == ".tif" and not label else shape).astype(np.uint8)
    if label:
        array = np.zeros(shape, np.uint8)
        array[4:9, 5:25] = 0 if empty else 255
    Image.fromarray(array).save(path)


@pytest.fixture
def patients(tmp_path):
    """Three patients of five slices in three colours; the first and the last slice show no tumour."""
    for name in "abc":
        for k in range(1, 6):
            picture(tmp_path / f"set/TCGA_{name}/TCGA_{name}_{k}.tif")
            picture(tmp_path / f"set/TCGA_{name}/TCGA_{name}_{k}_mask.tif", label=True, empty=k in (1, 5))
    return tmp_path / "set"


@pytest.fixture
def sections(tmp_path):
    """Twelve sections of one volume."""
    for k in range(12):
        picture(tmp_path / f"set/train/image/{k}.png")
        picture(tmp_path / f"set/train/label/{k}.png", label=True)
    return tmp_path / "set"


def test_slices_have_patient_and_number_and_patients_share_a_fold(patients, tmp_path, capsys):
    made = prepared(patients, tmp_path / "list.json", folds=3)
    datalist.check_datalist(made, patients)
    assert made["training"][0] == {
        "image": "TCGA_a/TCGA_a_1.tif",
        "label": "TCGA_a/TCGA_a_1_mask.tif",
        "case": "TCGA_a_1",
        "patient": "TCGA_a",
        "volume": "TCGA_a",
        "slice": 1,
        "fold": made["training"][0]["fold"],
    }
    assert {(entry["patient"], entry["fold"]) for entry in made["training"]} == {
        (f"TCGA_{name}", fold) for name, fold in zip("abc", [e["fold"] for e in made["training"][::5]], strict=True)
    }
    assert len({entry["fold"] for entry in made["training"]}) == 3
    assert re.search(r"fold 0 +5 +1 +2 +100 \(100 to 100\)", capsys.readouterr().out)


def test_list_and_messages_without_spacing_are_in_pixels(patients, tmp_path, capsys):
    made = prepared(patients, tmp_path / "list.json", folds=3)
    assert (made["dimensions"], made["unit"]) == (2, "pixel")
    assert "no spacing in the files: sizes and distances are in pixels" in made["notes"][0]
    said = capsys.readouterr().out
    assert "labelled pixels: median" in said
    assert " ml" not in said


def test_slices_with_a_spacing_are_measured_in_mm(tmp_path, capsys):
    phantom(str(tmp_path / "set"), cases=4, dims=2, **SMALL)
    made = prepared(tmp_path / "set", tmp_path / "list.json")
    assert (made["dimensions"], made["unit"]) == (2, "mm")
    assert "tumour in cm²" in capsys.readouterr().out


def test_volume_without_patients_is_split_into_blocks_with_a_reason(sections, tmp_path, capsys):
    made = prepared(sections, tmp_path / "list.json", folds=3)
    datalist.check_datalist(made, sections)
    place = {entry["slice"]: (entry["patient"], entry["fold"]) for entry in made["training"]}
    assert sorted(place) == [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]
    assert [place[k] for k in (0, 4, 11)] == [(f"train block {n}", n - 1) for n in (1, 2, 3)]
    assert not any(k + 1 in place and place[k] != place[k + 1] for k in place), "neighbours in two folds"
    said = capsys.readouterr().out
    assert "cut into 3 consecutive blocks: neighbouring slices are similar" in said
    assert "left out between blocks (--gap 1): train_3, train_8." in made["notes"]
    assert not any(name.endswith("/3.png") for name in made["hashes"])


def test_test_set_is_a_separate_block_at_the_end(sections, tmp_path):
    made = prepared(sections, tmp_path / "list.json", folds=2, test=0.3, gap=2)
    assert [entry["slice"] for entry in made["training"] if entry.get("split") == "test"] == [10, 11]
    assert max(entry["slice"] for entry in made["training"] if "fold" in entry) == 7


def test_several_volumes_are_split_as_wholes(tmp_path):
    for volume in "ab":
        for k in range(3):
            picture(tmp_path / f"set/{volume}/image/{k}.png")
            picture(tmp_path / f"set/{volume}/label/{k}.png", label=True)
    made = prepared(tmp_path / "set", tmp_path / "list.json")
    assert {(entry["case"][0], entry["patient"]) for entry in made["training"]} == {("a", "a"), ("b", "b")}
    assert len(made["training"]) == 6


def test_the_same_section_in_two_blocks_is_refused(sections, tmp_path):
    shutil.copy(sections / "train/image/0.png", sections / "train/image/11.png")
    with pytest.raises(
        InputError, match="slices train_0 and train_11 have identical pixels but are in different folds"
    ):
        prepared(sections, tmp_path / "list.json", folds=3)


def test_volume_too_short_for_blocks_is_refused_before_reading_files(sections, tmp_path):
    (sections / "train/image/0.png").write_text("no picture")
    with pytest.raises(InputError, match="12 labelled slices cannot be cut into 9 blocks"):
        prepared(sections, tmp_path / "list.json", folds=9)


def test_a_stack_is_listed_by_its_pages(tmp_path):
    (tmp_path / "set").mkdir()
    for kind in ("volume", "labels"):
        arrays = RNG.integers(30, 200, (8, 20, 30)).astype(np.uint8)
        pictures.write_picture(
            tmp_path / f"set/train-{kind}.tif", *(255 * (arrays > 90).astype(np.uint8) if kind == "labels" else arrays)
        )
    made = prepared(tmp_path / "set", tmp_path / "list.json")
    datalist.check_datalist(made, tmp_path / "set")
    last = made["training"][-1]
    assert (last["image"], last["label"], last["case"]) == (["train-volume.tif#7"], "train-labels.tif#7", "train_7")
    assert set(made["hashes"]) == {"train-volume.tif", "train-labels.tif"}


@pytest.mark.parametrize("ending", ["png", "tiff", "jpg"])
def test_any_folder_of_pictures_with_masks_is_read_by_patterns(tmp_path, ending):
    for name in "abcd":
        picture(tmp_path / f"set/images/{name}.{ending}")
        picture(tmp_path / f"set/masks/{name}_mask.png", label=True)
    patterns = {"channels": f"grey=images/{{case}}.{ending}", "label": "masks/{case}_mask.png", "labels": "cell=255"}
    made = prepared(tmp_path / "set", tmp_path / "list.json", **patterns)
    datalist.check_datalist(made, tmp_path / "set")
    assert made["training"][0]["image"] == [f"images/a.{ending}"]
    assert {entry["patient"] for entry in made["training"]} == set("abcd")
    assert not any("slice" in entry for entry in made["training"])


def test_volumes_and_slices_are_not_mixed(adults, tmp_path):
    mixed = Path(shutil.copytree(adults, tmp_path / "mixed"))
    for path in (mixed / "BraTS-GLI-00003-000").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, 16], image.affine), path)
    with pytest.raises(InputError, match=r"00000-000 has 3 axes and a spacing, case BraTS-GLI-00003-000 has 2 axes"):
        prepared(mixed, tmp_path / "list.json", allow_empty=True)


@pytest.mark.parametrize("gap", [-1, 1.5, "True"])
def test_gap_that_is_not_a_slice_count_is_refused(sections, tmp_path, gap):
    with pytest.raises(InputError, match=r"--gap is .*: expected"):
        prepared(sections, tmp_path / "list.json", gap=gap)


def test_real_slices_are_listed_by_patient_and_sections_by_block(shared_data, tmp_path):
    lgg = prepared(shared_data("lgg"), tmp_path / "lgg.json", folds=5)
    assert (len(lgg["training"]), lgg["label_scheme"], lgg["unit"]) == (233, "lgg", "pixel")
    assert len({entry["patient"] for entry in lgg["training"]}) == 10
    isbi = prepared(shared_data("isbi2012"), tmp_path / "isbi.json", folds=5)
    assert (len(isbi["training"]), isbi["label_scheme"]) == (26, "isbi2012")
    assert "--gap 1): train_5, train_11, train_18, train_24." in isbi["notes"][-1]
