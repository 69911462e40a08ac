"""The `train` command: train a task, changed by recipes and settings."""

from pathlib import Path

from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.workflows import list_configs as list_choices
from bundle.commands.workflows import run_workflow, training_files, training_settings

__all__ = ["list_choices", "train"]


@check_arguments
def train(
    task: str,
    *recipes: str,
    datalist: Path,
    dataset_dir: Optional[Path] = None,
    out: Optional[Path] = None,
    resume: Optional[Path] = None,
    requeue: bool = False,
    **settings: str,
) -> None:
    """Train a task, changed by recipes and settings: a run folder with the best weights.

    The command prints its long form, `python -m monai.bundle run training ...`, and runs it. docs/training.md explains
    a run, docs/configs.md every setting. Started by torchrun, the processes train together.

    Examples:
        python -m bundle train brats --datalist brats.json --dataset_dir /data/BraTS2021 --out runs/first
        python -m bundle train brats focal_tversky small_gpu --datalist brats.json --max_minutes 480
        python -m bundle train brats --datalist brats.json --resume runs/first
        torchrun --standalone --nproc_per_node=2 -m bundle train brats --datalist brats.json

    Args:
        task: what is segmented: a name from the list below, or a YAML file.
        recipes: how it is trained, each changing one idea; no two may set the same section.
        datalist: the data list (`python -m bundle prepare`).
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        out: a new folder for the run; by default runs/ with the time.
        resume: the folder of an interrupted run, in place of --out.
        requeue: after SIGTERM, exit with code 75 in place of 143, which asks a scheduler to start the job again.
        settings: any setting of configs/train.yaml, such as --learning_rate 3e-4 or --patch_size "[96,96,96]".
    """
    values = training_settings(datalist, dataset_dir, out, resume, settings)
    run_workflow("training", training_files(task, recipes), values | ({"requeue": True} if requeue else {}))
