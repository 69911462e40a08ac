"""Tests of `scripts/data/sampler.py`."""

from collections import Counter

import numpy as np
import pytest
import torch

from bundle.commands.prepare import prepare
from scripts.data.patch_dataset import PreparedCases
from scripts.data.sampler import EpochSampler
from scripts.errors import InputError
from tests.made.patches import box, cut_from


def sequence(epoch: int = 0, cases: int = 5, samples: int = 10, **others) -> list[tuple[int, int]]:
    sampler = EpochSampler(cases, samples, **others)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


def test_every_case_is_cut_equally_often_in_each_round():
    assert Counter(case for case, _ in sequence()) == dict.fromkeys(range(5), 2)
    assert Counter(case for case, _ in sequence()[:5]) == dict.fromkeys(range(5), 1)


def test_rounds_continue_across_epochs():
    over_epochs = [case for epoch in range(5) for case, _ in sequence(epoch, cases=5, samples=3)]
    assert all(sorted(over_epochs[start : start + 5]) == list(range(5)) for start in (0, 5, 10))


def test_the_order_is_new_in_each_round():
    rounds = [tuple(case for case, _ in sequence(epoch, cases=8, samples=8)) for epoch in range(5)]
    assert len(set(rounds)) == 5


def test_epoch_is_reproducible_and_other_epochs_or_seeds_differ():
    assert sequence(3) == sequence(3)
    others = [sequence(epoch, seed=seed) for epoch in (0, 1) for seed in (0, 1)]
    assert len({seed for drawn in others for _, seed in drawn}) == 40  # no patch is drawn twice


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_processes_share_one_sequence_without_losing_or_repeating_patches(world_size):
    parts = [sequence(2, samples=11, rank=rank, world_size=world_size) for rank in range(world_size)]
    together = [None] * 11
    for rank, part in enumerate(parts):
        together[rank::world_size] = part
    assert together == sequence(2, samples=11)


@pytest.mark.parametrize(("share", "least", "most"), [(0.5, 0.40, 0.62), (1.0, 1.0, 1.0), (0.0, 0.0, 0.06)])
def test_requested_share_of_patches_with_tumour_holds_for_small_tumours(share, least, most):
    # a patch centred anywhere holds the tumour in (3 + 7)³ of 40³ places, which is 0.016; the standard error of 0.5
    # over 300 patches is 0.029
    dataset = cut_from([box()], share)
    with_tumour = [bool(dataset[index]["label"].any()) for index in EpochSampler(cases=1, samples=300)]
    assert least <= np.mean(with_tumour) <= most


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.filterwarnings("ignore:Num foregrounds 0")
def test_a_case_without_tumour_yields_patches_of_brain(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(PreparedCases, "cache_name", lambda *_: "box")  # of its files, and this case has none
    dataset = cut_from([box(tumour=False)], cache=cache, cache_dir=tmp_path)
    for index in EpochSampler(cases=1, samples=4):
        patch = dataset[index]
        assert float(patch["label"].sum()) == 0
        assert float(patch["image"].min()) >= 1


def test_real_scans_give_patches_of_the_task(read_config, shared_data, tmp_path):
    """Cropped to the brain, resampled, normalised: BraTS 2015 has negative brain and voxels of 1 mm."""
    folder = shared_data("brats2015")
    prepare(str(folder), out=str(tmp_path / "list.json"), task="brats2015", folds=2, picture=False, workers=1)
    config = read_config(
        "configs/train.yaml", "configs/tasks/brats2015.yaml",
        datalist=str(tmp_path / "list.json"), dataset_dir=str(folder), run_dir=str(tmp_path / "run"), device="cpu",
    )  # fmt: skip
    dataset = config.get_parsed_content("train#dataset")
    del dataset.cases.data[1:]  # one case is enough
    for index in EpochSampler(cases=1, samples=3):
        patch = dataset[index]
        assert patch["image"].shape == (2, *config["patch_size"])
        assert patch["label"].shape == (3, *config["patch_size"])
        assert torch.isfinite(patch["image"]).all()
        brain = patch["image"][patch["image"] != 0].float()
        assert float(brain.std()) == pytest.approx(1, abs=0.5)


def test_half_of_the_patches_come_from_the_few_labelled_cases():
    sampler = EpochSampler(cases=10, samples=400, seed=1, labelled_share=0.5, labelled=lambda: [2, 7])
    drawn = [case for case, _ in sampler]
    assert sum(case in (2, 7) for case in drawn) == 200
    assert {case: drawn.count(case) for case in (2, 7)} == {2: 100, 7: 100}
    assert all(drawn.count(case) == 25 for case in range(10) if case not in (2, 7))


def test_labels_are_scanned_once_instead_of_each_epoch():
    asked = []
    sampler = EpochSampler(4, 8, labelled_share=0.5, labelled=lambda: asked.append(1) or [0])
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == 8
    assert len(asked) == 1


def test_labelled_share_is_ignored_when_all_or_none_have_labels():
    plain = list(EpochSampler(cases=3, samples=9, seed=1))
    for labelled in ([], [0, 1, 2]):
        assert list(EpochSampler(3, 9, seed=1, labelled_share=0.5, labelled=lambda known=labelled: known)) == plain


def test_weights_draw_each_case_as_often_as_expected():
    drawn = Counter(case for case, _ in sequence(cases=4, samples=10, weights=lambda: [1, 0, 2, 5]))
    for case, expected in enumerate((1.25, 0, 2.5, 6.25)):
        assert int(expected) <= drawn[case] <= np.ceil(expected)


def test_weights_are_met_on_average_over_epochs():
    drawn = Counter(
        case for epoch in range(200) for case, _ in sequence(epoch, cases=2, samples=3, weights=lambda: [1, 3])
    )
    assert drawn[0] / 600 == pytest.approx(0.25, abs=0.03)


def test_weights_change_cases_alone_and_not_the_seeds_of_patches():
    weighted, plain = sequence(3, weights=lambda: [1, 2, 3, 4, 5]), sequence(3)
    assert [seed for _, seed in weighted] == [seed for _, seed in plain]
    assert [case for case, _ in weighted] != [case for case, _ in plain]


def test_processes_share_one_weighted_sequence():
    parts = [sequence(2, samples=11, rank=rank, world_size=2, weights=lambda: [1, 2, 3, 4, 5]) for rank in range(2)]
    together = [None] * 11
    together[0::2], together[1::2] = parts
    assert together == sequence(2, samples=11, weights=lambda: [1, 2, 3, 4, 5])


def test_processes_draw_by_the_mean_of_their_weights(in_two_processes):
    parts = in_two_processes(lambda rank: sequence(samples=8, cases=2, weights=lambda: [[1, 0], [0, 1]][rank]))
    assert parts[0] == parts[1] == sequence(samples=8, cases=2, weights=lambda: [1, 1])


def test_resumed_epoch_draws_by_the_weights_it_began_with():
    first = EpochSampler(3, 6, weights=lambda: [1, 0, 0])
    whole = list(first)
    resumed = EpochSampler(3, 6, weights=lambda: [0, 0, 1])
    resumed.load_state_dict(first.state_dict())
    resumed.set_epoch(0, drawn=2)
    assert list(resumed) == whole[2:]
    resumed.set_epoch(1)
    assert {case for case, _ in resumed} == {2}  # a new epoch asks again


@pytest.mark.parametrize("weights", [[1, 1], [1, 1, -1], [1, 1, float("nan")], [0, 0, 0]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(InputError, match=r"the sampler got the weights .*: expected one per case \(3\), 0 or more"):
        list(EpochSampler(3, 6, weights=lambda: weights))


def test_weights_and_labelled_share_are_not_combined():
    with pytest.raises(InputError, match="both decide how often a case is drawn: use one"):
        EpochSampler(3, 6, labelled_share=0.5, weights=lambda: [1, 1, 1])


def test_chosen_centre_is_the_centre_of_the_patch():
    dataset = cut_from([box()])
    sampler = EpochSampler(1, 4, centres=lambda case, rng: int(np.ravel_multi_index((4, 5, 35), (40, 40, 40))))
    for index in sampler:
        patch = dataset[index]["image"]
        assert torch.equal(patch, dataset.cases.stored_case(0)["image"][:, 0:8, 1:9, 31:39])


def test_crop_chooses_where_no_centre_is_given():
    assert list(EpochSampler(2, 4, centres=lambda case, rng: None)) == list(EpochSampler(2, 4))
