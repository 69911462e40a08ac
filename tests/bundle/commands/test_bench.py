"""The `bench` command: its tables, its JSON file and the memory that it counts."""

import argparse
import json
import os
import re
import subprocess
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine

from bundle.__main__ import main
from bundle.benchmarks import infer, load, memory, slides, train
from bundle.benchmarks.gpu_use import covered_length
from bundle.benchmarks.nnunet import peer
from bundle.benchmarks.nnunet import training as nnunet_training
from bundle.benchmarks.timing import BenchmarkResult, Timing, add_ratios, time_call
from bundle.commands.bench import SUBJECTS
from scripts.network.fused_norm import InstanceNormLeakyReLU
from tests.made import ROOT

GUIDE = ROOT / "docs" / "record" / "performance.md"
SMALL = [4, 8, 8]
# its 1.5 GB do not go with the project's own pins; docs/record/performance.md has the command
needs_nnunet = pytest.mark.skipif("NNUNET" not in os.environ, reason="NNUNET names no Python with nnU-Net")


def names(result: BenchmarkResult) -> str:
    assert all(value > 0 for row in result.rows for value in row.values)
    return "\n".join(row.name for row in result.rows)


def test_score_benchmark_prints_ratios_and_writes_the_documented_file(tmp_path, capsys):
    main(["bench", "score", "--repeats", "2", "--scale", "0.2", "--out", str(tmp_path / "bench.json")])
    printed = capsys.readouterr().out
    assert "all metrics, from the files to the rows" in printed
    assert "MONAI's public calls" in printed
    content = json.loads((tmp_path / "bench.json").read_text())
    (subject,) = content["subjects"]
    first, *_ = subject["rows"]
    assert len(first["values"]) == 2
    assert first["ratio"] == 1
    assert min(first["values"]) <= first["median"] <= max(first["values"])
    told = set(re.findall(r"`(\w+)`", GUIDE.read_text(encoding="utf-8")))
    for part in (content, content["machine"], subject, first):
        assert set(part) <= told, f"docs/record/performance.md does not explain {set(part) - told}"


@pytest.mark.usefixtures("at_root")
def test_training_step_is_compared_with_bare_network_and_monai_order():
    result = train.measure_training(repeats=1, filters=SMALL, patch=16, size=32)
    told = names(result)
    for part in ("the network alone", "a step of the trainer", "MONAI's usual step", "recipe small_gpu"):
        assert part in told
    assert result.rows[0].ratio == 1
    assert result.rows[1].ratio > 1


def test_kernels_at_the_same_time_count_once():
    assert covered_length([(0, 2), (5, 6), (1, 3), (1, 2)]) == 4


def test_the_gpu_is_watched_within_an_epoch_of_the_trainer():
    trainer, seen = Engine(lambda *_: None), []
    watch = SimpleNamespace(
        start=lambda: seen.append(trainer.state.iteration),
        stop=lambda: seen.append(trainer.state.iteration),
        as_rows=lambda: list(seen),
    )
    trainer.run(range(60), max_epochs=1)
    assert train.watch_steps(trainer, lambda: trainer.run(range(60), max_epochs=2), watch) == [80, 100]


@pytest.mark.usefixtures("at_root")
def test_memory_does_not_grow_with_the_size_of_a_slide():
    pytest.importorskip("zarr")
    result = slides.measure_slides([512, 2048])
    small, large = ([row.median for row in result.rows[k : k + 4] if row.unit == "MB"] for k in (0, 4))
    assert len(small) == 2
    whole = 2048 * 2048 * 3 * 4 / 2**20  # of the larger slide, in single precision
    assert all(after - before < whole for before, after in zip(small, large, strict=True))


@pytest.mark.usefixtures("at_root")
def test_recomputed_blocks_and_smaller_batches_need_less_memory():
    default, halved = (memory.count_step_memory(batch_size=batch, patch_size=[64] * 3) for batch in (2, 1))
    assert memory.count_step_memory(["configs/recipes/small_gpu.yaml"], patch_size=[64] * 3) < halved < default
    activations = memory.count_step_memory() - memory.count_step_memory(batch_size=1)
    assert activations == pytest.approx(8 * (default - halved), rel=0.1)  # of patches twice as large along each axis


@pytest.mark.usefixtures("at_root")
def test_recipes_fit_the_memory_of_their_cards():
    assert memory.count_step_memory() < 8  # of 9 GiB; CUDA needs about one for itself
    assert memory.count_step_memory(["configs/recipes/small_gpu.yaml"]) < 5  # of 6


@pytest.fixture(scope="module")
def inference():
    """A benchmark as on a GPU with Triton, as far as a CPU goes: its result and the network."""
    networks = []

    class Watched(infer.Stopwatch):
        def __init__(self, network, device):
            networks.append(network)
            super().__init__(network, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(infer, "Stopwatch", Watched)
        patch.setattr("scripts.network.precision.channels_last_is_faster", lambda device, axes: True)
        return infer.measure_inference(repeats=1, filters=SMALL, scale=0.2), *networks


def test_case_is_compared_with_plain_sliding_window_over_whole_volume(inference):
    told = names(inference[0])
    for part in ("the network alone", "from four files to the mask", "as few windows", "plain: the whole volume"):
        assert part in told
    assert inference[0].settings["brain"] == [28, 35, 28]  # air is not in it


def test_benchmark_runs_the_network_prepared_as_users_run_it(inference):
    assert any(isinstance(module, InstanceNormLeakyReLU) for module in inference[1].modules())


def test_a_gpu_segments_several_cases_in_a_row(monkeypatch, at_root, tmp_path):
    infer.write_case(tmp_path, 0.2)
    config = infer.read_inference(tmp_path, "cpu", SMALL, 0.2)
    monkeypatch.setattr(infer, "measure_gpu_use", lambda call, device: [call()][1:])
    monkeypatch.setattr(infer, "time_call", lambda call, device: time_call(call))
    rows = infer.measure_several(config, "cuda")
    assert [row.name.strip() for row in rows] == ["ours, each of 8 cases in a row", "prepared on the GPU"]
    assert all(row.values[0] > 0 for row in rows)
    masks = [nib.load(tmp_path / "masks" / f"X{number}.nii.gz").get_fdata() for number in range(infer.SEVERAL)]
    assert masks[0].any()
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_the_mask_of_the_benchmark_is_a_tumour(inference):
    radius = infer.RADII[0] * 28
    assert inference[0].settings["mask_voxels"] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.1)


def test_drawn_balls_lie_inside_each_other():
    logits = infer.DrawBallsd()({"pred": torch.full((3, 24, 20, 22), infer.NO_TUMOUR)})["pred"]
    whole, core, enhancing = (int(mask.sum()) for mask in logits > 0)
    assert whole > core > enhancing > 0
    assert not ((logits[1:] > 0) & (logits[:-1] < 0)).any()


@pytest.mark.usefixtures("at_root")
def test_cohorts_of_every_size_are_measured_and_plotted(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "SIZE", 24)  # in this process, which draws them
    monkeypatch.setattr(load, "SPACING", 8.0)
    result = load.measure_loading(cases="2", repeats=1, picture=str(tmp_path / "load.png"))
    told = "\n".join(row.name for row in result.rows)
    for cache in ("memory", "disk"):
        assert f"2 cases in {cache}: an epoch" in told
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("at_root")
def test_results_of_another_python_are_added_to_ours(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\necho loading; echo '{\"windows\": [1.5, 2.5]}'\n")
    (tmp_path / "python").chmod(0o755)
    result = infer.measure_inference(repeats=1, filters=SMALL, scale=0.2, nnunet_python=str(tmp_path / "python"))
    (theirs,) = [row for row in result.rows if row.name.startswith("nnU-Net")]
    assert theirs.values == [1.5, 2.5]


ENTRIES = [{"case": str(fold), "fold": fold, "image": ["a.nii.gz", "b.nii.gz"]} for fold in range(2)]
REGIONS = {"regions": {"WT": [1, 2], "ET": [2]}, "labels_out": {"WT": 1, "ET": 2}}


@pytest.mark.parametrize(
    ("fold", "content", "image", "said"),
    [
        (2, REGIONS, None, "fold is 2: the data list has [0, 1]"),
        (0, {**REGIONS, "labels_out": {"ET": 2, "WT": 1}}, None, "labels_out in the same order"),
        (0, {"regions": {"lesion": [1]}, "labels_out": {"lesion": 1}}, None, "expected regions of several labels"),
        (0, REGIONS, "four.nii.gz", "expected one file per channel"),
    ],
)
def test_list_that_nnunet_would_misread_is_refused(fold, content, image, said):
    entries = [{**entry, "image": image or entry["image"]} for entry in ENTRIES]
    with pytest.raises(SystemExit, match=re.escape(said)):
        nnunet_training.require_possible(argparse.Namespace(fold=fold), content, entries)


def test_nnunet_list_is_accepted_with_background_0():
    nnunet_training.require_possible(argparse.Namespace(fold=1), REGIONS, ENTRIES)
    scan = np.full((5, 4, 3), -3.5, np.float32)
    scan[2, 2, 1] = 1.5
    assert np.unique(nnunet_training.zero_background(scan)).tolist() == [0, 5]
    scan[-1, -1, -1] = 0
    assert nnunet_training.zero_background(scan) is scan


@needs_nnunet
@pytest.mark.usefixtures("at_root")
def test_nnunet_is_measured_on_the_same_case_patch_and_features():
    python = peer.python_with_nnunet(os.environ["NNUNET"])
    training = train.measure_training(repeats=1, filters=[4, 8, 8, 8], patch=32, size=48, nnunet_python=python)
    assert "nnU-Net's step, its data made in the same process" in names(training)
    inference = infer.measure_inference(repeats=1, filters=SMALL, scale=0.2, nnunet_python=python)
    assert "nnU-Net: the brain's box by windows" in names(inference)


@needs_nnunet
def test_nnunet_trains_on_a_data_list_and_writes_masks(cohort, tmp_path):
    script = GUIDE.parents[1] / "bundle" / "benchmarks" / "nnunet" / "training.py"
    words = [script, cohort.datalist, cohort.dataset_dir, tmp_path / "nnunet", "--fold", "1", "--minutes", "0.01"]
    words += ["--patch", "16", "--spacing", "6", "--filters", "4", "8", "8"]
    subprocess.run([os.environ["NNUNET"], *map(str, words)], check=True, capture_output=True)
    masks = {path.name for path in (tmp_path / "nnunet" / "masks" / "1-0").glob("*.nii.gz")}
    content = json.loads(cohort.datalist.read_text())
    assert masks == {f"{entry['case']}.nii.gz" for entry in content["training"] if entry["fold"] == 1}


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_wrong_input_ends_in_a_sentence(capsys):
    assert "'slides', 'checks', 'variants' or 'clicks'." in refusal(capsys, "speed")
    assert "--repeats is 'many': expected a whole number" in refusal(capsys, "load", "--repeats", "many")
    assert "--scale is '0': expected more than 0" in refusal(capsys, "load", "--scale", "0")
    assert "--cases is 'many': expected a whole number" in refusal(capsys, "load", "--cases", "8,many")
    assert "expected the Python of an environment with nnunetv2" in refusal(capsys, "train", "--nnunet_python", "/none")
    if not torch.cuda.is_available():
        assert "0 CUDA devices" in refusal(capsys, "train", "--device", "cuda")


def test_the_help_names_every_subject(capsys):
    main(["bench", "--help"])
    shown = "".join(capsys.readouterr())
    assert all(subject in shown for subject in SUBJECTS)


def test_a_ratio_compares_only_what_has_one_unit():
    rows = add_ratios([Timing("a", [2.0, 4.0, 3.0]), Timing("b", [6.0]), Timing("c", [1.0], "GiB")])
    assert [row.ratio for row in rows] == [1, 2, None]
