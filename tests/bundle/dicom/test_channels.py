"""Which series is which channel: by rules with evidence, by the user, or a question."""

from pathlib import Path

import pydicom
import pytest

from bundle.dicom.channels import choose_channels, describe_choice, recognise_stacks
from bundle.dicom.stacks import SliceStack
from tests.made import refused
from tests.made.dicom import PARAMETERS, PATIENT

CHANNELS = ["T1", "T1c", "T2", "FLAIR"]


def make_stack(name: str, slices: int = 24, orientations: int = 1, **tags) -> SliceStack:
    header = pydicom.Dataset()
    for key, value in {"ScanningSequence": "SE", **PATIENT, **tags}.items():
        setattr(header, key, value)
    return SliceStack(header, [Path("x")] * slices, [float(k) for k in range(slices)], name, orientations)


STUDY = [make_stack(str(k), **PARAMETERS[name]) for k, name in enumerate(CHANNELS, start=1)]
OTHERS = [
    make_stack("10", SeriesDescription="localizer", RepetitionTime=8, EchoTime=3, slices=9, orientations=3),
    make_stack("11", SeriesDescription="ep2d_diff_trace", RepetitionTime=5000, EchoTime=90, DiffusionBValue=1000),
    make_stack("12", SeriesDescription="t2_swi", RepetitionTime=28, EchoTime=20),
    make_stack("13", SeriesDescription="TOF 3D", RepetitionTime=20, EchoTime=4),
    make_stack("14", SeriesDescription="t1_mprage_mpr_cor", RepetitionTime=8, EchoTime=3),
    make_stack("15", SeriesDescription="t1 sub", RepetitionTime=8, EchoTime=3),
    make_stack("16", SeriesDescription="perf_dsc", RepetitionTime=1500, EchoTime=30),
]


def names(found) -> dict[str, str]:
    return {channel: one.stack.name for channel, one in found.items()}


def test_channels_are_found_among_other_series():
    found = choose_channels([*OTHERS, *STUDY], CHANNELS, {})
    assert names(found) == {"T1": "1", "T1c": "2", "T2": "3", "FLAIR": "4"}


@pytest.mark.parametrize("stack", OTHERS, ids=lambda stack: str(stack.header.SeriesDescription))
def test_a_series_of_another_kind_is_no_channel(stack):
    (one,) = recognise_stacks([stack])
    assert one.kinds == []
    assert one.evidence[0].startswith("excluded: ")


def test_parameters_alone_are_enough():
    bare = [
        make_stack(str(k), **{**{key: value for key, value in PARAMETERS[name].items() if key != "SeriesDescription"}})
        for k, name in enumerate(CHANNELS, start=1)
    ]
    assert names(choose_channels(bare, CHANNELS, {})) == {"T1": "1", "T1c": "2", "T2": "3", "FLAIR": "4"}


def test_an_inversion_time_of_mprage_does_not_make_a_flair():
    (one,) = recognise_stacks(
        [make_stack("1", RepetitionTime=2000, EchoTime=3, InversionTime=900, ScanningSequence="GR IR")]
    )
    assert one.kinds == ["T1"]


def test_an_agent_tag_copied_to_the_first_series_decides_nothing():
    first = make_stack("1", **{**PARAMETERS["T1"], "ContrastBolusAgent": "Gadovist"})
    assert names(choose_channels([first, *STUDY[1:]], CHANNELS, {})) == {"T1": "1", "T1c": "2", "T2": "3", "FLAIR": "4"}


def test_an_absent_agent_tag_is_no_evidence_against_contrast():
    tags = {key: value for key, value in PARAMETERS["T1c"].items() if key != "ContrastBolusAgent"}
    second = make_stack("2", **tags)
    assert names(choose_channels([STUDY[0], second, *STUDY[2:]], CHANNELS, {}))["T1c"] == "2"


def test_one_kind_of_evidence_for_contrast_is_a_question():
    later = make_stack("2", **{**PARAMETERS["T1"], "AcquisitionTime": "104000"})
    sentence = refused(choose_channels, [STUDY[0], later, *STUDY[2:]], CHANNELS, {})
    assert "T1 could be series 1 (" in sentence
    assert "series 2 (" in sentence
    assert 'say which by --channels "T1=SERIES"' in sentence


@pytest.mark.parametrize("words", ["AX T1 W/O CONTRAST", "T1 NO CONTRAST", "T1 UNENHANCED", "T1 w/o Gad", "t1_wo_gd"])
def test_a_scan_described_without_contrast_is_no_t1c(words):
    first = make_stack("1", **{**PARAMETERS["T1"], "SeriesDescription": words, "ContrastBolusAgent": "Gadovist"})
    assert [one.kinds for one in recognise_stacks([first])] == [["T1"]]
    assert "no series is recognised as T1c" in refused(choose_channels, [first, STUDY[3]], ["T1c", "FLAIR"], {})


def test_one_series_that_may_have_contrast_is_a_question():
    first = make_stack("1", **{**PARAMETERS["T1"], "SeriesDescription": "t1 post"})
    assert "T1c could be series 1 (" in refused(choose_channels, [first, STUDY[3]], ["T1c", "FLAIR"], {})


def test_two_candidates_are_a_question_that_the_user_answers():
    second = make_stack("7", **PARAMETERS["T2"])
    sentence = refused(choose_channels, [*STUDY, second], CHANNELS, {})
    assert "T2 could be series 3 (24 slices, TR 5000 ms, TE 95 ms" in sentence
    assert names(choose_channels([*STUDY, second], CHANNELS, {"T2": "7"}))["T2"] == "7"


def test_a_missing_channel_lists_what_there_is():
    sentence = refused(choose_channels, STUDY[:3], CHANNELS, {})
    assert "no series is recognised as FLAIR: series 1 (" in sentence


def test_a_series_that_does_not_exist_is_named():
    assert "the study has 1, 2, 3, 4" in refused(choose_channels, STUDY, CHANNELS, {"T1": "9"})


def test_a_chosen_series_is_no_candidate_for_another_channel():
    other = make_stack("7", **PARAMETERS["T1"])
    assert names(choose_channels([*STUDY, other], CHANNELS, {"T1": "7", "T1c": "1"})) == {
        "T1": "7", "T1c": "1", "T2": "3", "FLAIR": "4",
    }  # fmt: skip


def test_evidence_names_no_patient_date_or_id():
    tags = {**PARAMETERS["T1"], "SeriesDescription": "t1_mprage Muster Erika 4711-0815 20260401"}
    (one,) = recognise_stacks([make_stack("1", **tags)])
    shown = describe_choice(one).lower()
    assert "t1 mprage" in shown
    assert not [word for word in ("muster", "erika", "4711", "0815", "2026") if word in shown]
