"""Tests of `bundle/studies/postprocessing.py` and `component_trials.py`: nothing is dropped that a patient needs."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from bundle.studies.postprocessing import COLUMNS, change_settings, choose_postprocessing
from tests.made import refused, save_nifti

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])  # 0.008 ml a voxel
PATIENTS = 10
REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
LABELS = {"NCR": 1, "ED": 2, "ET": 4}
SETTINGS = "# Settings.\nmin_component_ml: {WT: 0.5}\nlabels_out: {WT: 2, TC: 1, ET: 4}\n"
TUMOUR = (slice(2, 10),) * 3  # 4.1 ml
CORE = (slice(3, 8),) * 3  # 1 ml
SPECK = (slice(17, 19), 17, 17)  # 0.016 ml
LESION = (slice(16, 18), slice(16, 18), slice(2, 4))  # 0.064 ml


def mask_of(*boxes: tuple[int, tuple]) -> np.ndarray:
    made = np.zeros((20, 20, 20), np.uint8)
    for value, box in [(2, TUMOUR), (4, CORE), *boxes]:
        made[box] = value
    return made


@pytest.fixture
def choose(tmp_path):
    """Chooses from (label, mask, probabilities of the regions or None) of each patient."""

    def choose(*cases):
        (tmp_path / "fold0").mkdir(exist_ok=True)
        (tmp_path / "fold0" / "settings.yaml").write_text(SETTINGS)
        entries = []
        for number, (label, mask, soft) in enumerate(cases):
            name = f"p{number}"
            save_nifti(tmp_path / "data" / f"{name}.nii.gz", label, AFFINE)
            save_nifti(tmp_path / "cv" / "masks" / f"{name}.nii.gz", mask, AFFINE)
            if soft is not None:
                save_nifti(tmp_path / "cv" / "masks" / "probabilities" / f"{name}.nii.gz", soft, AFFINE)
            entries.append({"case": name, "patient": name, "image": "x", "label": f"{name}.nii.gz", "fold": 0})
        content = {"training": entries, "regions": REGIONS, "labels": LABELS}
        return choose_postprocessing(tmp_path / "cv", content, tmp_path / "data", [tmp_path / "fold0"], workers=1)

    return choose


CLEAN = mask_of(), mask_of(), None
DIRTY = mask_of(), mask_of((4, SPECK)), None


def test_specks_of_ten_patients_are_dropped_and_the_rule_written(choose, tmp_path):
    found = choose(*[DIRTY] * PATIENTS)
    assert found.min_component_ml == {"ET": 0.02, "TC": 0.02, "WT": 0.02}
    assert found.min_component_probability == {}
    written = (tmp_path / "cv" / "postprocessing.yaml").read_text()
    assert yaml.safe_load(written) == {"min_component_ml": found.min_component_ml, "min_component_probability": {}}
    assert "# ET: components below 0.02 ml go, 10 in 10 patients: Dice +" in written
    table = pd.read_csv(tmp_path / "cv" / "postprocessing.csv", keep_default_na=False)
    assert list(table.columns) == COLUMNS
    assert table["kept"].sum() == 3


def test_rule_overrides_inference_like_settings_of_a_run(choose, tmp_path, read_config):
    choose(*[DIRTY] * PATIENTS)
    config = read_config("configs/inference.yaml", str(tmp_path / "cv" / "postprocessing.yaml"))
    assert config.get_parsed_content("min_component_ml")["ET"] == 0.02
    assert not config.get_parsed_content("min_component_probability")


def test_rule_is_written_into_the_settings_of_the_runs(choose, tmp_path):
    found = choose(*[DIRTY] * PATIENTS)
    text = (tmp_path / "fold0" / "settings.yaml").read_text()
    assert text.startswith("# Settings.\n")
    assert yaml.safe_load(text) == {
        "min_component_ml": found.min_component_ml,
        "labels_out": {"WT": 2, "TC": 1, "ET": 4},
        "min_component_probability": {},
    }


def test_with_nine_patients_nothing_is_dropped(choose, tmp_path):
    found = choose(*[DIRTY] * (PATIENTS - 1))
    assert (found.min_component_ml, found.min_component_probability) == ({}, {})
    assert found.notes == ["9 patients are too few to choose which components to drop, which takes 10: all are kept."]
    assert (tmp_path / "cv" / "postprocessing.csv").read_text().strip() == ",".join(COLUMNS)


def test_rule_that_costs_one_patient_a_lesion_is_not_kept(choose):
    true = mask_of((4, LESION)), mask_of((4, LESION)), None
    found = choose(true, *[DIRTY] * (PATIENTS - 1))
    assert set(found.min_component_ml.values()) == {0.02}  # 0.05 would keep the lesion too, 0.1 not
    rows = found.table.query("region == 'ET' and min_ml == 0.1")
    assert not rows["kept"].any()
    assert rows["reason"].iloc[0].startswith(("lowers a score of ET", "does not help beyond chance"))


def test_specks_of_few_patients_do_not_help_beyond_chance(choose):
    equal = mask_of((4, LESION)), mask_of((4, LESION), (4, SPECK)), None
    worse = mask_of((4, SPECK)), mask_of((4, SPECK)), None
    assert choose(worse, equal, *[CLEAN] * PATIENTS).min_component_ml == {}


def test_clean_masks_have_no_rule(choose):
    found = choose(*[CLEAN] * PATIENTS)
    assert found.min_component_ml == {}
    assert set(found.table["reason"]) == {"drops nothing"}


def test_better_dice_does_not_keep_a_rule_that_misses_lesions(choose):
    # of a lesion of 8 voxels 1 is found, with 3 false ones: Dice gains without them, but the lesion is missed
    part = (slice(17, 19), slice(17, 19), 3)
    found = choose(*[(mask_of((4, LESION)), mask_of((4, part)), None)] * PATIENTS)
    rows = found.table.query("region == 'ET' and min_ml == 0.05")
    assert rows["dice"].iloc[0] > 0 > rows["lesionwise"].iloc[0]
    assert rows["reason"].iloc[0] == "lowers a score of ET"
    assert found.min_component_ml == {}


def test_small_tumour_without_another_stays_in_the_choice(choose):
    tiny = np.where(mask_of() == 4, 1, mask_of()).astype(np.uint8)
    tiny[5, 5, 5] = 4  # 0.008 ml of enhancing tumour, the only one
    found = choose((tiny, tiny, None), *[DIRTY] * (PATIENTS - 1))
    assert found.min_component_ml["ET"] == 0.02
    assert not found.table["reason"].str.startswith("erases").any()


def test_doubtful_specks_of_the_size_of_lesions_go_by_probability(choose):
    label, mask = mask_of((4, (14, 2, 2))), mask_of((4, (14, 2, 2)), (4, (14, 14, 14)))
    soft = np.stack([np.isin(mask, values) for values in REGIONS.values()], axis=-1) * np.float32(0.95)
    soft[14, 14, 14] = 0.55
    found = choose(*[(label, mask, soft)] * PATIENTS)
    assert found.min_component_probability == dict.fromkeys(("ET", "TC", "WT"), 0.6)
    assert "of a mean probability below 0.6 go" in " ".join(found.notes)


def test_mask_on_another_grid_is_refused(choose, tmp_path):
    choose(*[CLEAN] * PATIENTS)
    path = tmp_path / "cv" / "masks" / "p3.nii.gz"
    nib.save(nib.Nifti1Image(mask_of(), np.eye(4)), path)
    entries = [
        {"case": f"p{n}", "patient": f"p{n}", "image": "x", "label": f"p{n}.nii.gz", "fold": 0} for n in range(PATIENTS)
    ]
    content = {"training": entries, "regions": REGIONS, "labels": LABELS}
    message = refused(
        choose_postprocessing, tmp_path / "cv", content, tmp_path / "data", [tmp_path / "fold0"], workers=1
    )
    assert message.startswith(f"{path} has voxels of 1 x 1 x 1 mm where the label has 2 x 2 x 2 mm")


def test_settings_of_a_run_are_changed_whole(tmp_path):
    (tmp_path / "settings.yaml").write_text("# One.\n# Two.\na: 1\n")
    change_settings(tmp_path, {"b": {"WT": 0.5}})
    assert (tmp_path / "settings.yaml").read_text() == "# One.\n# Two.\na: 1\nb:\n  WT: 0.5\n"
