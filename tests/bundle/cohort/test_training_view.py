import numpy as np
import torch
from monai.bundle import ConfigParser

from bundle.cohort.training_view import cut_training_patches, read_training_config, training_dataset
from scripts.data import datalist as lists


def test_patches_are_those_that_training_draws(cohort, small_train, at_root):
    content = lists.read_datalist(cohort.datalist)
    entries = lists.select_cases(content, cohort.dataset_dir, "training", 0)
    small = {"patch_size": [16, 16, 16], "seed": 3, "normalize": "percentile", "cache": "none"}
    training = small_train(**small, steps_per_epoch=3)
    loader = training.get_parsed_content("train#dataloader")
    expected = [training.get_parsed_content("train#trainer").prepare_batch(batch, "cpu") for batch in loader]
    config = read_training_config(content, ["phantom"])
    config["patch_size"] = [16, 16, 16]
    dataset = training_dataset(config, entries, ("percentile", "volume"), None, seed=3)
    drawn = cut_training_patches(config, dataset, count=6)
    for key, several in (("image", [e[0] for e in expected]), ("label", [e[1] for e in expected])):
        assert np.array_equal(np.stack([patch[key] for patch in drawn]), torch.cat(several).numpy())


def test_recipe_can_override_a_task(cohort, at_root):
    config = read_training_config(
        lists.read_datalist(cohort.datalist), ["phantom", "configs/recipes/class_ratios.yaml"]
    )
    assert isinstance(config, ConfigParser)
    assert config["train"]["crop"]["_target_"] == "RandCropByLabelClassesd"
    assert config.get_parsed_content("patch_size") == [32, 32, 32]
