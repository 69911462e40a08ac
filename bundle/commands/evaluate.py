"""The `evaluate` command: segment and score the test or validation patients of a run, or of several as one."""

from pathlib import Path
from typing import Literal

from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.shared import Outcome, print_agreement, read_numbers
from bundle.commands.workflows import (
    hide_warnings,
    parse_settings,
    read_run_config,
    require_root,
    run_files,
    run_workflow,
)
from scripts import distributed
from scripts.errors import InputError
from scripts.files import read_mapping


@check_arguments
def evaluate(
    run: Path,
    *,
    ensemble: CommaList[Path] = (),
    datalist: Optional[Path] = None,
    dataset_dir: Optional[Path] = None,
    part: Optional[Literal["test", "validation", "labelled"]] = None,
    fold: Optional[int] = None,
    out: Optional[Path] = None,
    without: CommaList[str] = (),
    resume: bool = False,
    requeue: bool = False,
    **settings: str,
) -> Outcome:
    """Segment and score the test or validation patients of a run, against their original label files.

    Writes OUT/cases.csv, evaluation.json and masks/. The command prints its long form,
    `python -m monai.bundle run evaluating ...`, and runs it. Started by torchrun, the processes share the cases.
    Several runs give one mask, as for `segment`; a patient counts as unseen only if no run has used it.

    Examples:
        python -m bundle evaluate runs/first
        python -m bundle evaluate runs/first --part validation --fold 0 --out runs/first/validated
        python -m bundle evaluate runs/first --datalist brats.json --dataset_dir /data/BraTS2021 --tta True
        python -m bundle evaluate runs/cv --part test
        python -m bundle evaluate runs/dropout --without T2
        python -m bundle evaluate runs/first --ensemble runs/second --out runs/both

    Args:
        run: the folder of a run or of a cross-validation, or of a selection.
        ensemble: further runs or cross-validations to average with the first.
        datalist: the data list; by default the one that the run was trained with.
        dataset_dir: the folder that the list's paths start from; by default the run's own, or the one that holds the
            list, where a list is given.
        part: test, validation or labelled; by default the test patients, or without any the fold that the run was
            validated on.
        fold: the fold that `--part validation` means; by default the run's own.
        out: the folder to write to; by default RUN/evaluation.
        without: channels to leave out of all cases, such as T2, of a network that was trained with the recipe
            channel_dropout; by default to RUN/evaluation_without_T2. What that costs in Dice is printed.
        resume: skip cases that are segmented already.
        requeue: after SIGTERM, exit with code 75 in place of 143, which asks a scheduler to start the job again.
        settings: any setting of configs/evaluate.yaml, such as --overlap 0.25 or --device cpu.
    """
    from bundle.analysis.channel_costs import WHOLE, WITHOUT, describe_channel_costs, measure_channel_costs
    from bundle.studies import averaging, candidates, cascade, members
    from scripts.network.ensemble import read_run_settings

    require_root()
    configurations = members.find_configurations([run, *ensemble])
    first = configurations[0][0]
    files, trained = run_files(first, "configs/evaluate.yaml"), read_run_config(first)
    if datalist is None:
        if not trained.get("datalist"):
            raise InputError(f"{first} does not say which data list it was trained with: give --datalist.")
        datalist, dataset_dir = Path(trained["datalist"]), dataset_dir or Path(trained["dataset_dir"])
    if ensemble and out is None:
        raise InputError(f"evaluate needs --out with --ensemble: {run / 'evaluation'} is of {run} alone.")
    home = run.parent if run.is_file() else run
    target = out or home / (f"{WITHOUT}{'_'.join(without)}" if without else WHOLE)
    given = {
        "datalist": datalist.as_posix(),
        "dataset_dir": (dataset_dir or datalist.parent).as_posix(),
        "part": part,
        "fold": fold,
        "output_dir": target.as_posix(),
        "resume": resume or None,
        "requeue": requeue or None,
        "without": list(without) or None,
    }
    values = {name: value for name, value in given.items() if value is not None} | parse_settings(settings)
    if stage := cascade.find_first_stage(configurations):
        hide_warnings()
        of_first = parse_settings(candidates.shared_settings([stage]))
        of_first |= {name: values[name] for name in ("device", "preprocessing_device") if name in values}
        start, own_fold = dataset_dir or datalist.parent, read_run_settings(first).get("fold") if fold is None else fold
        values |= cascade.segment_unseen(stage, of_first, target, datalist, start, part, own_fold)
    code = 0
    try:
        if len(configurations) > 1:
            hide_warnings()
            averaging.evaluate_with_several(configurations, values)
        else:
            run_workflow("evaluating", files, values | members.name_weights(configurations[0]))
    except SystemExit as ended:  # some cases failed; their rows are there
        code = int(ended.code or 0)
    if distributed.is_first_process():
        print_agreement(target)
    if without and len(configurations) == 1 and target.parent == home and distributed.is_first_process():
        about = read_mapping(target / "evaluation.json")["about"]
        costs = measure_channel_costs(home, about["sha256"])
        missing = f"what that costs: after python -m bundle evaluate {home}, the same command with --resume"
        print(*(describe_channel_costs(costs) or [missing]), sep="\n")
    return Outcome(lambda: read_numbers(target), code)
