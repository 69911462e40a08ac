"""General sentences on size are made only where the numbers support them."""

from bundle.analysis.evaluation import read_evaluation
from bundle.analysis.summary import summarise_evaluation
from bundle.reporting.sentences import evaluation_findings
from bundle.reporting.size_sentences import describe_lesions_found, describe_size_effect
from tests.made import cohort, rows_of, write

LESIONS = "case,patient,region,lesion,volume,unit,detected,dice"


def summary_of(folder, rows, lesions=()):
    write(folder, rows)
    if lesions:
        table = [f"c00,c00,WT,{k},{volume},ml,{found},{0.8 * found}" for k, (volume, found) in enumerate(lesions)]
        (folder / "lesions.csv").write_text("\n".join([LESIONS, *table]) + "\n")
    return summarise_evaluation(read_evaluation(folder), "t")


def test_large_tumours_score_higher_only_where_intervals_part(tmp_path):
    rising = [0.3 + 0.02 * k for k in range(24)]
    (said,) = describe_size_effect(summary_of(tmp_path / "rising", cohort(rising)))
    assert "larger ones score higher" in said
    assert "n = 8" in said
    mixed = [0.6 + 0.01 * (7 * k % 24) for k in range(24)]
    (said,) = describe_size_effect(summary_of(tmp_path / "mixed", cohort(mixed)))
    assert said == "WT: these cases do not show that Dice depends on the volume."


def test_few_large_lesions_are_not_called_easier_to_find(tmp_path):
    many = [(5, 1)] * 20 + [(0.05, 0)] * 20
    (said,) = describe_lesions_found(summary_of(tmp_path / "many", cohort([0.8]), many))
    assert said == "WT: 20 of 20 lesions over 1 ml were found, more often than smaller ones; of smaller ones 0 of 20."
    (said,) = describe_lesions_found(summary_of(tmp_path / "few", cohort([0.8]), [(5, 1), (0.05, 0)]))
    assert said == "WT: 1 of 1 lesions over 1 ml were found; of smaller ones 0 of 1."


def test_specks_of_the_label_do_not_lead_what_was_missed(tmp_path):
    rows = (
        cohort([0.8] * 5) + rows_of("speck", "WT", 0, 0.01, note="missed") + rows_of("real", "WT", 0, 30, note="missed")
    )
    findings = evaluation_findings(summary_of(tmp_path, rows))
    assert "Missed completely: WT in 1 case." in findings
    assert findings[-1] == "Specks of the label of at most 0.1 ml were missed: WT in 1 case."


def test_a_patient_with_a_missed_speck_is_not_shown_first(tmp_path):
    rows = cohort([0.8, 0.6]) + rows_of("speck", "WT", 0.9) + rows_of("speck", "ET", 0, 0.01, note="missed")
    assert summary_of(tmp_path, rows)["worst"] == ["c01", "c00", "speck"]
