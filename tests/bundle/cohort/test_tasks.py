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
