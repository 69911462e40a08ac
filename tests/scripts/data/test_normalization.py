"""Each normalisation method computes what it documents, within its scope and from training cases alone."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import run
from monai.data import MetaTensor
from monai.transforms import (
    HistogramNormalize,
    NormalizeIntensity,
    NormalizeIntensityd,
    ScaleIntensity,
    ScaleIntensityRangePercentiles,
)
from skimage.exposure import equalize_adapthist

from scripts.data.normalization import METHODS, NO_STATISTICS, SCOPES, Normalized
from scripts.data.patch_dataset import PreparedCases
from scripts.errors import InputError, input_error_message
from tests.made.normalization import normalized, seen_in_training_and_inference, settings_of, started

MRI_METHODS = [method for method in METHODS if method != "hu_window"]  # which has a unit

# ---- air ------------------------------------------------------------------------------------------------------------


def test_constant_background_is_prepared_like_zero_background(read_config, tmp_path):
    brain = np.random.default_rng(0).normal(100, 20, (14, 12, 10)).astype(np.float32)
    prepared = []
    for name, air in (("zero", 0.0), ("minus", -512.0)):
        image = np.full((24, 20, 16), air, np.float32)
        image[5:19, 4:16, 3:13] = brain
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii.gz")
        config = read_config("configs/inference.yaml")
        config.update({"channels": ["T1"], "channel_files": {"T1": ["{case}.nii.gz"]}})
        prepared.append(
            config.get_parsed_content("preprocessing")({"image": str(tmp_path / f"{name}.nii.gz")})["image"]
        )
    assert prepared[0].shape == prepared[1].shape == (1, 14, 12, 10)
    assert torch.allclose(*(image.as_tensor() for image in prepared), atol=1e-4)


# ---- methods -------------------------------------------------------------------------------------------------------


def test_zscore_nonzero_is_bit_for_bit_what_monai_gives(head):
    expected = NormalizeIntensityd("image", nonzero=True, channel_wise=True)({"image": head.clone()})["image"]
    assert torch.equal(normalized(head, "zscore_nonzero"), expected)


@pytest.mark.parametrize("workflow", ["train", "evaluate", "inference"])
def test_default_normalization_is_monais_with_nonzero_and_per_channel(read_config, workflow):
    steps = read_config(f"configs/{workflow}.yaml").get_parsed_content("preprocessing").transforms
    (step,) = [step for step in steps if isinstance(step, NormalizeIntensityd | Normalized)]
    assert isinstance(step, NormalizeIntensityd)
    assert (step.normalizer.nonzero, step.normalizer.channel_wise) == (True, True)


def test_zscores_by_hand():
    image = [[[0.0, 2.0, 4.0]]]  # of 2 and 4: mean 3, deviation 1; of all: mean 2, deviation sqrt(8/3)
    assert normalized(image, "zscore_nonzero").tolist() == [[[0, -1, 1]]]
    assert normalized(image, "zscore")[0, 0].tolist() == pytest.approx([-1.2247449, 0, 1.2247449])


def test_minmax_by_hand():
    assert normalized([[[-1.0, 0.0, 3.0]]], "minmax").tolist() == [[[0, 0.25, 1]]]


def test_percentiles_by_hand():
    image = torch.cat([torch.zeros(50), torch.arange(1.0, 202.0)])[None]  # 0.5 % of 201 values are one value
    done = normalized(image, "percentile")[0]
    assert done[:52].tolist() == [0] * 52  # air, 1, and 2, which becomes 0
    assert done[-2:].tolist() == [1, 1]  # 200 becomes 1; 201 is clipped
    assert done[150].item() == pytest.approx(0.5)  # 101 is in the middle


def test_other_percentiles_are_a_setting():
    image = torch.arange(1.0, 102.0)[None]
    done = Normalized("image", "percentile", percentiles=[10, 60])({"image": image})["image"][0]
    assert done[[0, 10, 35, 60, 100]].tolist() == pytest.approx([0, 0, 0.5, 1, 1])


def test_median_and_quartiles_by_hand():
    image = torch.tensor([[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 500.0]])  # of 1 to 500: median 3, quartiles 2 and 4
    done = normalized(image, "median_iqr")[0]
    assert done[:6].tolist() == pytest.approx([0, 0, -1.349, -0.6745, 0, 0.6745])
    normal = normalized(torch.randn(1, 100_000) + 9, "median_iqr")
    assert float(normal.std()) == pytest.approx(1, abs=0.02)


def test_hu_window_scales_ct_and_air_becomes_0():
    image = torch.tensor([[-1000.0, -1000.0, 0.0, 20.0, 40.0, 80.0, 1500.0]])
    assert normalized(image, "hu_window")[0].tolist() == [0, 0, 0, 0.25, 0.5, 1, 1]
    soft = Normalized("image", "hu_window", hu_window=[-100, 100])({"image": image})["image"]
    assert soft[0, 2:5].tolist() == pytest.approx([0.5, 0.6, 0.7])


@pytest.mark.parametrize("air", [-1000.0, -1024.0, 0.0])
def test_ct_is_cropped_to_the_window_and_not_shifted(read_config, tmp_path, air):
    image = np.full((24, 20, 16), air, np.float32)
    image[5:19, 4:16, 3:13] = np.random.default_rng(0).uniform(20, 60, (14, 12, 10))
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "ct.nii.gz")
    given = {"channels": ["CT"], "channel_files": {"CT": ["{case}.nii.gz"]}, "normalize": "hu_window"}
    config = read_config("configs/inference.yaml", **given)
    done = config.get_parsed_content("preprocessing")({"image": str(tmp_path / "ct.nii.gz")})["image"]
    assert torch.allclose(done.as_tensor()[0], torch.from_numpy(image[5:19, 4:16, 3:13] / 80))


def test_histogram_by_hand():
    image = torch.tensor([[0.0] * 5 + [1.0, 2.0, 3.0, 1000.0]])  # as wide apart as it likes: the rank alone counts
    done = normalized(image, "histogram")[0]
    assert done[:5].tolist() == [0] * 5
    assert done[-1] == 1
    even = normalized(torch.linspace(1, 2, 10_000)[None] ** 4, "histogram")[0]
    assert torch.allclose(even.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), atol=0.02)


def test_each_method_equals_the_librarys_on_the_same_voxels(head):
    brain = head[0][head[0] != 0]
    percentiles = ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)
    for method, library in (
        ("zscore_nonzero", NormalizeIntensity()),
        ("percentile", percentiles),
        ("histogram", HistogramNormalize(min=0, max=1)),
    ):
        assert torch.equal(normalized(head, method)[0][head[0] != 0], library(brain)), method
    assert torch.equal(normalized(head, "zscore")[0], NormalizeIntensity()(head[0].clone()))
    assert torch.equal(normalized(head, "minmax"), ScaleIntensity(0, 1, channel_wise=True)(head))
    scaled = torch.zeros_like(head[0])
    scaled[head[0] != 0] = percentiles(brain)
    expected = np.where(head[0] != 0, equalize_adapthist(scaled.numpy()), 0)
    assert np.array_equal(normalized(head, "clahe")[0].numpy(), expected)


@pytest.mark.parametrize("method", ["zscore_nonzero", "median_iqr", "percentile", "histogram", "clahe"])
@pytest.mark.parametrize("scope", ["volume", "slice"])
def test_background_stays_0_for_methods_on_the_brain(head, method, scope):
    assert normalized(head, method, scope)[head == 0].unique().tolist() == [0]


@pytest.mark.parametrize("method", MRI_METHODS)
def test_channel_does_not_depend_on_unit_or_other_channels(head, method):
    both = normalized(head, method)
    assert torch.allclose(both[0], normalized(head[:1], method)[0])
    assert torch.allclose(both, normalized(head * 1000, method), atol=1e-4)


@pytest.mark.parametrize("method", MRI_METHODS)
@pytest.mark.parametrize("scope", ["volume", "slice"])
def test_constant_image_becomes_0_instead_of_nan(method, scope):
    for value in (0.0, 7.0):
        assert normalized(torch.full((1, 4, 4, 3), value), method, scope).unique().tolist() == [0]


@pytest.mark.parametrize("method", METHODS)
def test_a_slice_with_a_single_other_voxel_stays_finite(method):
    image = torch.full((1, 40, 40, 1), 7.0)  # the uppermost slice of a real scan is such a one
    image[0, 0, 0] = 5000.0
    done = normalized(image, method, "slice")
    assert torch.isfinite(done).all()
    assert done.abs().max() <= 40  # the z-score of one in 1600


@pytest.mark.parametrize("method", METHODS)
def test_image_keeps_its_affine_and_applied_operations(head, method):
    image = MetaTensor(head, affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    cropped = image[:, 1:]
    done = Normalized("image", method)({"image": cropped})["image"]
    assert torch.equal(done.affine, cropped.affine)
    assert done.applied_operations == cropped.applied_operations
    assert done.dtype == torch.float32


def test_input_is_left_unchanged(head):
    for method in METHODS:
        image = head.clone()
        Normalized("image", method)({"image": image})
        assert torch.equal(image, head), method


# ---- scopes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MRI_METHODS)
def test_slice_scope_normalizes_each_axial_slice_independently(head, method):
    head *= torch.arange(1, 9)  # brighter from below upwards, as under a surface coil
    done = normalized(head, method, "slice")
    for k in range(head.shape[-1]):
        assert torch.equal(done[..., k], normalized(head[..., k], method)), k
    assert not torch.allclose(done, normalized(head, method))


@pytest.mark.parametrize("method", METHODS)
def test_an_image_of_two_axes_is_one_slice(head, method):
    image = head[..., 3]
    assert torch.equal(normalized(image, method, "slice"), normalized(image, method, "volume"))


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "z-score"}, "normalize is 'z-score' .did you mean zscore.*: expected zscore_nonzero, zscore"),
        ({"method": None}, "normalize is 'None': expected"),
        ({"scope": "volumes"}, "normalize_scope is 'volumes' .did you mean volume.*: expected slice, volume, dataset"),
        ({"method": "clahe", "scope": "dataset"}, "uses neighbourhoods .*cannot be dataset: use volume"),
        ({"method": "hu_window", "scope": "dataset"}, "is the same for every image, so .* cannot be dataset"),
        ({"percentiles": [99, 1]}, r"percentiles is \[99, 1\]: expected two ascending numbers from 0 to 100"),
        ({"percentiles": [0.5, 100.5]}, "percentiles is .*: expected two ascending numbers"),
        ({"hu_window": [40]}, r"hu_window is \[40\]: expected two ascending numbers"),
        ({"hu_window": ["0", 80]}, "hu_window is .*: expected two ascending numbers"),
        (
            {"method": "minmax", "scope": "dataset", "statistics": [{"method": "zscore", "mean": 1, "std": 1}]},
            "intensity_statistics are of zscore, but normalize is minmax",
        ),
    ],
)
def test_unknown_choice_is_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        Normalized("image", **settings)


def test_dataset_scope_without_statistics_is_refused(head):
    with pytest.raises(InputError, match=r"intensity_statistics are not given: add the run's settings\.yaml"):
        normalized(head, "zscore", "dataset")


@pytest.mark.usefixtures("at_root")
def test_inference_without_dataset_statistics_ends_in_one_sentence(cohort, small_train, tmp_path):
    network = small_train(deep_supervision=False).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    given = {"input": str(cohort.datalist), "dataset_dir": str(cohort.dataset_dir), "device": "cpu"}
    small = {"patch_size": [16, 16, 16], "filters": [4, 8, 8], "checkpoint": str(tmp_path / "model.pt")}
    with pytest.raises(RuntimeError) as caught:
        run(
            "inferring",
            config_file=["configs/inference.yaml", "configs/tasks/phantom.yaml"],
            output_dir=str(tmp_path / "out"),
            normalize_scope="dataset",
            **given,
            **small,
        )
    assert "intensity_statistics are not given" in input_error_message(caught.value)
    assert not (tmp_path / "out").exists()


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_training_and_inference_see_the_same_numbers_by_data_set(small_train, read_config):
    training = started(small_train(normalize="zscore", normalize_scope="dataset"))
    seen = seen_in_training_and_inference(training, read_config)
    assert torch.equal(*seen)
    assert abs(seen[0].mean().item()) < 1  # of all training cases together it is 0


def test_resumed_run_keeps_its_statistics_and_choices(small_train):
    settings = {"normalize": "minmax", "normalize_scope": "dataset"}
    config = started(small_train(**settings))
    folder = config.get_parsed_content("folder")
    folder.write_settings(min_component_ml={"WT": 0.5}, chosen=None)
    stored = settings_of(config)
    stored["intensity_statistics"][0]["high"] = 1234.0
    (folder.path / "settings.yaml").write_text(yaml.safe_dump(stored))
    again = started(small_train(**settings, resume=str(folder.path)))
    assert settings_of(again) == stored
    assert again.get_parsed_content("preprocessing").transforms[-1].statistics[0]["high"] == 1234.0
    again.get_parsed_content("folder").write_settings(min_component_ml={}, chosen=None)
    assert settings_of(again)["intensity_statistics"] == stored["intensity_statistics"]


def test_given_statistics_are_used_and_written_to_run_settings(small_train):
    given = [{"method": "zscore", "mean": 100.0 * number, "std": 7.0} for number in range(4)]
    config = started(small_train(normalize="zscore", normalize_scope="dataset", intensity_statistics=given))
    assert settings_of(config)["intensity_statistics"] == given
    assert config.get_parsed_content("preprocessing").transforms[-1].statistics == given


def test_checking_a_workflow_reads_no_case(small_train):
    config = small_train(normalize="minmax", normalize_scope="dataset", dataset_dir="/nowhere")
    config.get_parsed_content("train#trainer")
    assert config.get_parsed_content("preprocessing").transforms[-1].statistics is None


def test_different_method_scope_or_statistics_is_another_cache_entry(small_train, tmp_path):
    case = small_train().get_parsed_content("train#dataset").data[0]
    choices = [(m, s) for m in ("zscore", "minmax") for s in ("slice", "volume")]
    choices += [("minmax", "dataset", [{"method": "minmax", "low": 0, "high": high}]) for high in (1, 2)]
    names = {PreparedCases([case], Normalized("image", *choice)).cache_name(case) for choice in choices}
    assert len(names) == len(choices) == 6


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize("choice", [("percentile", "dataset"), ("clahe", "slice"), ("hu_window", "volume")])
def test_a_run_with_another_choice_trains_and_segments(cohort, tmp_path, choice):
    given = {"dataset_dir": str(cohort.dataset_dir), "device": "cpu", "overlap": 0.0}
    short = {"max_epochs": 1, "steps_per_epoch": 1, "patch_size": [16, 16, 16], "filters": [4, 8, 8]}
    run(
        "training",
        config_file=["configs/train.yaml", "configs/tasks/phantom.yaml"],
        datalist=str(cohort.datalist),
        run_dir=str(tmp_path / "run"),
        **dict(zip(("normalize", "normalize_scope"), choice, strict=True)),
        **given,
        **short,
    )
    files = ["configs/inference.yaml", str(tmp_path / "run" / "settings.yaml")]
    run("inferring", config_file=files, input=str(cohort.datalist), output_dir=str(tmp_path / "masks"), **given)
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 1


@pytest.mark.parametrize("method", METHODS)
def test_exactly_one_of_two_normalizing_steps_is_enabled(read_config, method):
    for scope in SCOPES:
        if scope != "dataset" or method not in NO_STATISTICS:
            config = read_config("configs/inference.yaml", normalize=method, normalize_scope=scope)
            steps = config.get_parsed_content("preprocessing").transforms
            (step,) = [step for step in steps if isinstance(step, NormalizeIntensityd | Normalized)]
            assert isinstance(step, NormalizeIntensityd) == ((method, scope) == ("zscore_nonzero", "volume"))
