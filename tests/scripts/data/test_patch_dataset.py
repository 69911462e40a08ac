"""Patches are reproducible, and caches return prepared cases unchanged."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from monai.data import DataLoader, get_track_meta
from monai.transforms import Compose, Lambdad, ScaleIntensityd, Transform

from scripts.data import patch_dataset, pictures
from scripts.data.datalist import read_datalist, select_cases
from scripts.data.input_channels import DeriveChannelsd
from scripts.data.loading import LoadImageChannelsd
from scripts.data.patch_dataset import CACHE_VERSION, PreparedCases
from scripts.errors import InputError, input_error_message
from tests.made.patches import box, cut_from

# ---- the sequence of patches ---------------------------------------------------------------------------------------


# ---- patches -------------------------------------------------------------------------------------------------------


def patches(config, workers: int = 0, epoch: int = 0) -> list[dict]:
    """The batches of one epoch of train.yaml."""
    dataset, sampler = config.get_parsed_content("train#dataset"), config.get_parsed_content("train#sampler")
    dataset.cases.prepare()
    sampler.set_epoch(epoch)
    return list(DataLoader(dataset, sampler=sampler, batch_size=2, num_workers=workers))


def same(first: list[dict], second: list[dict]) -> bool:
    assert len(first) == len(second) > 0
    return all(
        a["case"] == b["case"] and all(torch.equal(a[key], b[key]) for key in ("image", "label", "seed"))
        for a, b in zip(first, second, strict=True)
    )


def test_patches_are_what_the_network_and_the_loss_take(small_train):
    for batch in patches(small_train()):
        assert batch["image"].shape == (2, 4, 16, 16, 16)
        assert batch["image"].dtype == torch.float16  # AugmentedBatch makes them float32, on the device
        assert batch["label"].shape == (2, 3, 16, 16, 16)
        assert set(batch["label"].unique().tolist()) <= {0, 1}
        wt, tc, et = batch["label"].unbind(1)
        assert (et <= tc).all()
        assert (tc <= wt).all()


def test_loader_processes_change_no_pixel(small_train):
    config = small_train()
    assert same(patches(config, workers=0), patches(config, workers=2))


def test_same_epoch_repeats_its_pixels_and_other_epochs_differ(small_train):
    config = small_train()
    assert same(patches(config, epoch=1), patches(config, epoch=1))
    assert not same(patches(config, epoch=1), patches(config, epoch=0))


def test_the_seed_of_the_run_decides_the_patches(small_train):
    assert same(patches(small_train(seed=5)), patches(small_train(seed=5)))
    assert not same(patches(small_train(seed=5)), patches(small_train(seed=6)))


@pytest.mark.parametrize("overlay", [[], ["configs/recipes/class_ratios.yaml"]], ids=["tumour share", "class ratios"])
def test_the_cache_changes_no_pixel(small_train, tmp_path, overlay):
    in_memory = patches(small_train(*overlay, cache="memory"))
    settings = {"cache": "disk", "cache_dir": str(tmp_path / "cache")}
    assert same(in_memory, patches(small_train(*overlay, **settings)))
    assert same(in_memory, patches(small_train(*overlay, **settings), workers=1))  # found on disk
    assert same(in_memory, patches(small_train(*overlay, cache="none")))


def test_patch_larger_than_the_head_is_padded_with_background(small_train):
    dataset = small_train(patch_size=[48, 48, 48]).get_parsed_content("train#dataset")
    patch = dataset[(0, 1)]
    assert patch["image"].shape == (4, 48, 48, 48)
    original = small_train().get_parsed_content("train#dataset").cases[0]
    assert max(original["image"].shape[1:]) < 48
    assert int(patch["label"].sum()) == int(original["label"].sum()) > 0
    assert torch.isclose(patch["image"].float().sum(), original["image"].sum(), rtol=1e-3, atol=1.0)


def test_cases_with_any_label_are_found_among_empty_ones():
    assert cut_from([box(tumour=False), box(), box(tumour=False), box()]).labelled() == [1, 3]


@pytest.mark.parametrize("place", [(4, 5, 35), (20, 20, 20), (1, 1, 39)], ids=["rim", "middle", "moved inwards"])
def test_patch_has_its_centre_as_an_index_takes_it(place):
    dataset = cut_from([box()])
    patch = dataset[(0, 1, int(np.ravel_multi_index(place, (40, 40, 40))))]
    again = dataset[(0, 2, patch["centre"])]
    assert torch.equal(again["image"], patch["image"])
    assert np.unravel_index(patch["centre"], (40, 40, 40)) == tuple(min(max(axis, 4), 36) for axis in place)


def test_patch_does_not_send_its_volume_through_the_loader_queue():
    patch = cut_from([box()])[(0, 7)]
    assert patch["image"].untyped_storage().nbytes() == 8**3 * 2  # half precision
    assert type(patch["image"]) is torch.Tensor


def test_other_transforms_keep_metadata_after_a_patch_succeeds_or_fails():
    dataset = cut_from([box()])
    dataset[(0, 7)]
    assert get_track_meta()
    too_large = cut_from([box(size=6, tumour=False)])
    with pytest.raises(RuntimeError):
        too_large[(0, 7)]
    assert get_track_meta()


# ---- prepared cases ------------------------------------------------------------------------------------------------


class Counting(Transform):
    """Loads nothing, but counts its calls per case."""

    asked: ClassVar[list[str]] = []

    def __init__(self, value: float = 1.0, size: int = 2) -> None:
        self.value, self.shape = value, (1, size, size, size)

    def __call__(self, data):
        Counting.asked.append(data["case"])
        value = self.value * len(Path(data["image"]).read_text())
        return {**data, "image": torch.full(self.shape, value), "label": torch.zeros(self.shape)}


@pytest.fixture
def entries(tmp_path) -> list[dict]:
    """Two cases whose files are text."""
    Counting.asked.clear()
    made = [{"case": name, "image": str(tmp_path / f"{name}.txt"), "label": str(tmp_path / "seg.txt")} for name in "ab"]
    for file in (*(entry["image"] for entry in made), made[0]["label"]):
        Path(file).write_text("x")
    return made


def test_memory_prepares_each_case_once(entries):
    cases = PreparedCases(entries, Counting())
    cases.prepare()
    first, again = cases[0], cases[0]
    first["image"] = None  # what a transform replaces is not replaced in the cache
    assert float(again["image"].max()) == float(cases[0]["image"].max()) == 1
    assert sorted(Counting.asked) == ["a", "b"]
    assert len(cases) == 2


def test_without_a_cache_a_case_is_prepared_each_time(entries):
    cases = PreparedCases(entries, Counting(), cache="none")
    cases.prepare()
    assert Counting.asked == []
    assert [cases[1]["case"], cases[1]["case"]] == ["b", "b"]
    assert Counting.asked == ["b", "b"]


def on_disk(entries, tmp_path, transform=None, **others) -> PreparedCases:
    cases = PreparedCases(entries, transform or Counting(), cache="disk", cache_dir=tmp_path / "cache", **others)
    cases.prepare()
    return cases


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_cached_case_takes_half_the_memory_and_returns_full_precision(entries, tmp_path, cache):
    cases = PreparedCases(entries, Counting(0.1), cache=cache, cache_dir=tmp_path / "cache")
    assert cases.stored_case(0)["image"].dtype == torch.float16
    assert cases[0]["image"].dtype == torch.float32
    assert float(cases[0]["image"].max()) == pytest.approx(0.1, rel=2**-11)
    assert cases[0]["voxel_ml"].dtype == torch.float32


def test_intensities_too_large_for_half_precision_are_kept_unchanged(entries):
    cases = PreparedCases(entries, Counting(70_000.0))
    assert float(cases[0]["image"].max()) == float(cases.stored_case(0)["image"].max()) == 70_000


def test_foreground_indices_take_four_bytes_per_voxel():
    kept = cut_from([box()]).cases.stored_case(0)
    assert {kept[f"label_{part}_indices"].dtype for part in ("fg", "bg")} == {torch.int32}
    assert sorted(kept["label_fg_indices"].tolist()) == torch.nonzero(box()["label"].flatten()).flatten().tolist()


def test_cached_cases_are_found_by_the_next_run(entries, tmp_path):
    on_disk(entries, tmp_path)
    assert float(on_disk(entries, tmp_path)[1]["image"].max()) == 1
    assert len(Counting.asked) == 2


def test_second_process_of_a_machine_begins_with_other_cases(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(patch_dataset, "local_rank", lambda: 1)
    monkeypatch.setattr(patch_dataset, "local_world_size", lambda: 2)
    cases = on_disk(entries, tmp_path, workers=1)
    assert Counting.asked == ["b", "a"]
    assert [case["case"] for case in cases] == ["a", "b"]


def test_cases_that_an_earlier_version_kept_are_removed(entries, tmp_path):
    earlier, others = tmp_path / "cache" / ("0" * 32), tmp_path / "cache" / "mine"
    for folder in (earlier, others):
        folder.mkdir(parents=True)
        (folder / "image.npy").write_bytes(b"")
    on_disk(entries, tmp_path)
    assert not earlier.exists()
    assert others.exists()


def test_two_pages_of_one_file_are_two_cases_on_disk(entries, tmp_path):
    arrays = np.stack([np.full((4, 5), page, np.uint8) for page in range(2)])
    pictures.write_picture(tmp_path / "stack.tif", *arrays)
    several = [{**entries[0], "image": f"{tmp_path / 'stack.tif'}#{page}"} for page in range(2)]
    load = LoadImageChannelsd("image", ["EM"])
    cases = on_disk(several, tmp_path, load, keep=("image",))
    assert [float(cases[number]["image"].max()) for number in range(2)] == [0, 1]


def test_changed_file_is_prepared_again(entries, tmp_path):
    on_disk(entries, tmp_path)
    Path(entries[1]["image"]).write_text("longer")
    assert float(on_disk(entries, tmp_path)[1]["image"].max()) == 6
    assert sorted(Counting.asked) == ["a", "b", "b"]


def test_file_of_the_same_size_written_later_is_prepared_again(entries, tmp_path):
    on_disk(entries, tmp_path)
    os.utime(entries[0]["label"], (0, 0))  # the label of both
    on_disk(entries, tmp_path)
    assert len(Counting.asked) == 4


def test_changed_transform_prepares_cases_again(entries, tmp_path):
    on_disk(entries, tmp_path)
    assert float(on_disk(entries, tmp_path, Counting(value=3.0))[0]["image"].max()) == 3
    more = Compose([Counting(), ScaleIntensityd("image", minv=0.0, maxv=0.0)])
    assert float(on_disk(entries, tmp_path, more)[0]["image"].max()) == 0


def test_unfinished_entry_of_a_killed_run_is_not_a_case(entries, tmp_path):
    first = on_disk(entries, tmp_path)
    folder = first.held[0]["folder"]
    folder.rename(folder.with_name(".writing-abc"))
    (folder.with_name(".writing-abc") / "image.npy").write_bytes(b"half")
    assert float(on_disk(entries, tmp_path)[0]["image"].max()) == 1
    assert sorted(Counting.asked) == ["a", "a", "b"]


def test_case_on_disk_is_mapped_so_patches_read_little(entries, tmp_path):
    cases = on_disk(entries, tmp_path)
    image = cases.stored_case(0)["image"]
    path = str(cases.held[0]["folder"] / "image.npy")
    assert path in Path("/proc/self/maps").read_text()
    image += 5  # a transform may write to it ...
    assert float(cases[0]["image"].max()) == 1  # ... and the file stays as it was


def test_full_disk_gives_the_reason_and_leaves_no_partial_case(entries, tmp_path, full_disk):
    with full_disk(10_000), pytest.raises(InputError, match=r"cache .* cannot be written") as refused:
        on_disk(entries, tmp_path, Counting(size=24))
    assert "(None)" not in str(refused.value)
    assert list((tmp_path / "cache" / CACHE_VERSION).iterdir()) == []


def test_cache_folder_that_cannot_be_created_ends_in_a_sentence(entries, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cache .* cannot be written"):
        on_disk(entries, tmp_path)


def test_a_cache_of_another_name_is_refused():
    with pytest.raises(InputError, match="cache is 'ram': expected memory, disk, none"):
        PreparedCases([], Lambdad("image", torch.abs), cache="ram")


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_a_damaged_scan_is_named_when_cases_are_prepared(small_train, cohort, tmp_path, cache):
    entry = select_cases(read_datalist(cohort.datalist), cohort.dataset_dir, "training", 0)[0]
    damaged = tmp_path / "damaged_t1.nii.gz"
    damaged.write_bytes(b"not a scan")
    entry["image"][0] = str(damaged)
    transform = small_train().get_parsed_content("train#preprocessing")
    cases = PreparedCases([entry], transform, cache=cache, cache_dir=tmp_path / "cache")

    def prepare() -> None:
        cases.prepare()
        cases[0]

    with pytest.raises(RuntimeError) as failed:
        prepare()
    assert re.match(r".*damaged_t1\.nii\.gz cannot be read as an image", input_error_message(failed.value))


def test_prepared_case_has_its_voxel_volume(small_train):
    cases = small_train().get_parsed_content("validate#dataset")
    assert float(cases[0]["voxel_ml"]) == pytest.approx(0.216)  # 6 mm a side
    resampled = small_train(spacing=[3.0, 6.0, 6.0]).get_parsed_content("validate#dataset")
    assert float(resampled[0]["voxel_ml"]) == pytest.approx(0.108)


NAMES = """
import sys
from monai.bundle import ConfigParser
config = ConfigParser()
config.read_config(["configs/train.yaml", "configs/tasks/phantom.yaml"])
config.update({"datalist": sys.argv[1], "dataset_dir": sys.argv[2], "device": "cpu", "run_dir": "x"})
cases = config.get_parsed_content("train#dataset").cases
print(*[cases.cache_name(entry) for entry in cases.data])
"""


def test_another_process_gives_a_prepared_case_the_same_name(small_train, cohort, at_root):
    """Otherwise every run would prepare every case again and fill the disk."""
    config = small_train(patch_size=[32, 32, 32], filters=[8, 16, 32, 64], run_dir="x")
    cases = config.get_parsed_content("train#dataset").cases
    here = [cases.cache_name(entry) for entry in cases.data]
    command = [sys.executable, "-c", NAMES, str(cohort.datalist), str(cohort.dataset_dir)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    assert done.stdout.split() == here
    assert len(set(here)) == 3


def test_edited_code_of_a_derived_channel_prepares_cases_again(entries, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for body in ("image + 1", "image + 2"):
        (tmp_path / "my_filters.py").write_text(f"def edge(image):\n    return {body}\n")
        importlib.invalidate_caches()
        derive = importlib.import_module("my_filters").edge
        step = DeriveChannelsd("image", ["T1"], {"E": {"of": "T1", "transform": derive}})
        names.append(PreparedCases(entries, step).cache_name(entries[0]))
    assert names[0] != names[1]
