import pytest

from bundle.cohort.tasks import choose_task, known_tasks, read_task
from scripts.errors import InputError


def test_a_mistyped_task_gets_the_nearest_name():
    with pytest.raises(InputError, match="did you mean brats2023"):
        choose_task("brats2032", known_tasks())


def test_a_task_file_of_the_users_own_is_read(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "label_scheme: mine\nlabels: {a: 1}\nchannels: [CT]\nregions: {a: [1]}\nroi: 3\n"
    )
    task = choose_task(str(tmp_path / "mine.yaml"), known_tasks())
    assert (task.name, task.channels) == ("mine", ["CT"])


@pytest.mark.parametrize(
    ("text", "sentence"), [("labels: {a: 1}", "has no label_scheme, channels"), ("a: [", "cannot be read")]
)
def test_a_broken_task_file_is_explained(tmp_path, text, sentence):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_task(tmp_path / "mine.yaml")


RATERS = (
    "label_scheme: mine\nlabels: {a: 1}\nchannels: [CT]\nregions: {a: [1]}\nchannel_files: {CT: ['{case}.nii.gz']}\n"
    "rater_files: {anna: ['anna/{case}.nii.gz'], ben: ['ben/{case}.nii.gz']}\n"
)


def test_a_task_file_names_raters_and_the_value_to_ignore(tmp_path):
    (tmp_path / "mine.yaml").write_text(RATERS + "ignore: 9\n")
    task = read_task(tmp_path / "mine.yaml")
    assert ([*task.rater_files], task.ignore, task.expected().ignore) == (["anna", "ben"], 9, 9)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ignore: 1\n", "ignore is 1, which is also the value of a"),
        ("ignore: x\n", "ignore is x: expected a whole number above 0"),
    ],
)
def test_a_task_file_that_contradicts_itself_is_refused(tmp_path, text, sentence):
    (tmp_path / "mine.yaml").write_text(RATERS + text)
    with pytest.raises(InputError, match=sentence):
        read_task(tmp_path / "mine.yaml")
