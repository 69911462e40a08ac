"""The `check` command: build every component of a training, without training."""

from pathlib import Path

from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.workflows import list_configs as list_choices
from bundle.commands.workflows import run_workflow, training_files, training_settings

__all__ = ["check", "list_choices"]


@check_arguments
def check(
    task: str,
    *recipes: str,
    datalist: Optional[Path] = None,
    dataset_dir: Optional[Path] = None,
    out: Optional[Path] = None,
    resume: Optional[Path] = None,
    **settings: str,
) -> None:
    """Build every component of a training and pass the shape of a batch through them, without training.

    Takes the arguments of `train`. Mistakes in names, settings and recipes end here in a sentence; with a data list its
    files are checked too. `--overfit True` trains on one batch of a few cases until its loss has halved, for 200
    steps at most, and draws it.

    Examples:
        python -m bundle check brats --datalist brats.json --dataset_dir /data/BraTS2021
        python -m bundle check brats focal_tversky my_network.yaml --patch_size "[96,96,96]"
        python -m bundle check brats --datalist brats.json --dataset_dir /data/BraTS2021 --overfit True

    Args:
        task: what is segmented: a name from the list below, or a YAML file.
        recipes: how it is trained, each changing one idea; no two may set the same section.
        datalist: the data list (`python -m bundle prepare`); without one only settings, network and loss are checked.
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        out: the folder that the run would have.
        resume: the folder of a run that would be resumed.
        settings: any setting of configs/train.yaml, such as --learning_rate 3e-4 or --patch_size "[96,96,96]".
    """
    values = training_settings(datalist, dataset_dir, out, resume, settings)
    without_data = {} if datalist else {"init_id": "check_settings"}
    run_workflow("check" if datalist else "check_network", training_files(task, recipes), without_data | values)
