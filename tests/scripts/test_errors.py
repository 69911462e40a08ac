"""Invalid input ends in one sentence wherever it was detected."""

import subprocess
import sys

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, Lambdad

from scripts.errors import InputError, input_error_message, install_excepthook, report_and_exit

SENTENCE = "/data/a_t1.nii.gz is cut short: copy it again."


def refuse(_: object) -> None:
    raise InputError(SENTENCE)


def raised(action) -> Exception:
    try:
        action()
    except Exception as error:
        return error.with_traceback(None)  # whose frames would keep a loader's process alive
    pytest.fail("nothing was raised")


def loader_error() -> BaseException:
    data = Dataset([{"image": 1.0}], transform=Compose([Lambdad("image", refuse)]))
    return raised(lambda: next(iter(DataLoader(data, num_workers=1))))


def test_sentence_is_found_inside_monais_exceptions():
    transform = Compose([Lambdad("image", refuse)])
    wrapped = raised(lambda: transform({"image": torch.zeros(1)}))
    assert not isinstance(wrapped, InputError)
    assert input_error_message(wrapped) == SENTENCE


def test_input_error_in_a_loader_process_becomes_its_sentence():
    assert input_error_message(loader_error()) == SENTENCE


def test_input_error_of_plain_datasets_in_loaders_becomes_its_sentence():
    class Refusing(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            refuse(index)

    loader = torch.utils.data.DataLoader(Refusing(), num_workers=1)
    assert input_error_message(raised(lambda: next(iter(loader)))) == SENTENCE


def test_the_sentence_of_a_loader_process_survives_a_further_wrapping():
    def wrap():
        raise RuntimeError("evaluating the expression failed") from loader_error()

    assert input_error_message(raised(wrap)) == SENTENCE


def test_later_of_two_sentences_from_a_loader_process_is_shown():
    def refuse_again(data: object) -> None:
        try:
            refuse(data)
        except InputError as error:
            raise InputError("case a cannot be prepared.") from error

    data = torch.utils.data.DataLoader(Dataset([0], transform=refuse_again), num_workers=1)
    assert input_error_message(raised(lambda: next(iter(data)))) == "case a cannot be prepared."


def test_bug_is_not_reported_as_invalid_input():
    assert input_error_message(raised(lambda: [][1])) is None
    assert input_error_message(None) is None


def test_errors_that_cause_each_other_do_not_loop_forever():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert input_error_message(first) is None


def test_the_excepthook_prints_one_line_and_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        report_and_exit(InputError, InputError(SENTENCE), None)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {SENTENCE}\n"


def test_the_excepthook_leaves_the_traceback_of_a_bug(capsys):
    report_and_exit(IndexError, IndexError("list index out of range"), None)
    assert "IndexError: list index out of range" in capsys.readouterr().err


def test_install_excepthook_replaces_the_excepthook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    install_excepthook()
    assert sys.excepthook is report_and_exit


@pytest.mark.parametrize(
    ("error", "code", "last_line"),
    [("InputError('a.nii is missing.')", 2, "error: a.nii is missing."), ("KeyError('x')", 1, "KeyError: 'x'")],
)
def test_a_whole_process_ends_as_the_hook_says(at_root, error, code, last_line):
    program = f"from scripts.errors import InputError, install_excepthook; install_excepthook(); raise {error}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert done.stderr.strip().splitlines()[-1] == last_line
    assert ("Traceback" in done.stderr) == (code == 1)


@pytest.mark.parametrize("said", ["Interrupted.", "Interrupted; resume with --resume runs/a."])
def test_ctrl_c_ends_in_its_sentence_and_code_130(capsys, said):
    with pytest.raises(SystemExit) as caught:
        report_and_exit(KeyboardInterrupt, KeyboardInterrupt(said) if ";" in said else KeyboardInterrupt(), None)
    assert caught.value.code == 130
    assert capsys.readouterr().err == f"\n{said}\n"
