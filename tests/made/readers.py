"""What each reader of the project makes of one NIfTI file: its voxels and affine, or the sentence that refuses it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bundle.analysis.rater_masks import read_mask
from scripts.data.case_checks import check_case
from scripts.data.case_files import Case
from scripts.data.case_record import ExpectedCase
from scripts.data.images import read_labels, read_stored
from scripts.data.loading import LoadImageChannelsd
from scripts.errors import InputError

Answer = tuple[np.ndarray, np.ndarray] | str


def _network(path: Path) -> Answer:
    image = LoadImageChannelsd(["image"], ["T1"])({"image": [str(path)]})["image"]
    return image.numpy()[0], image.affine.numpy()


def _score(path: Path) -> Answer:
    return read_labels(path, range(1, 256))[:2]


def _prepare(path: Path) -> Answer:
    record = check_case(Case("a", [path]), ExpectedCase(["T1"], frozenset(), "demo"))
    unreadable = [problem for problem in record.problems if str(path) in problem]
    return unreadable[0] if unreadable else read_stored(path)[0][:2]


def _raters(path: Path) -> Answer:
    mask = read_mask(path)
    return mask.inside, mask.affine


READERS: dict[str, Callable[[Path], Answer]] = {
    "prepare": _prepare,
    "network": _network,
    "score": _score,
    "raters": _raters,
}


def read_by_all(path: Path) -> dict[str, Answer]:
    """The answer of every reader."""
    return {name: answer_of(read, path) for name, read in READERS.items()}


def answer_of(read: Callable[[Path], Answer], path: Path) -> Answer:
    """The answer of one reader."""
    try:
        return read(path)
    except InputError as error:
        return str(error)


def refusal_of_all(path: Path) -> str:
    """The sentence with which all readers refuse the file; fails if they differ or one accepts it."""
    answers = read_by_all(path)
    accepted = [name for name, answer in answers.items() if not isinstance(answer, str)]
    assert not accepted
    assert len(set(map(str, answers.values()))) == 1
    return str(answers["score"])
