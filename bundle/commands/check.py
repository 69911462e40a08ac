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
    datalist: Path,
    dataset_dir: Optional[Path] = None,
    out: Optional[Path] = None,
    resume: Optional[Path] = None,
    **settings: str,
) -> None:
    """Build every component of a training, without training: mistakes in names, settings and files end here.

    Takes the arguments of `train`.

    Examples:
        python -m bundle check brats --datalist brats.json --dataset_dir /data/BraTS2021
        python -m bundle check brats focal_tversky --datalist brats.json --patch_size "[96,96,96]"

    Args:
        task: what is segmented: a name from the list below, or a YAML file.
        recipes: how it is trained, each changing one idea; no two may set the same section.
        datalist: the data list (`python -m bundle prepare`).
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        out: the folder that the run would have.
        resume: the folder of a run that would be resumed.
        settings: any setting of configs/train.yaml, such as --learning_rate 3e-4 or --patch_size "[96,96,96]".
    """
    run_workflow(
        "check", training_files(task, recipes), training_settings(datalist, dataset_dir, out, resume, settings)
    )
