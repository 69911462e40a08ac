"""The `export` command: turn a trained run, or several as one network, into a Model Zoo package."""

from pathlib import Path

from pydantic import PositiveInt
from rich.console import Console
from rich.table import Table

from bundle.commands.arguments import CommaList, Optional, check_arguments
from bundle.commands.shared import Outcome


@check_arguments
def export(
    run: Path,
    *,
    ensemble: CommaList[Path] = (),
    out: Path = Path("dist"),
    name: Optional[str] = None,
    version: str = "0.1.0",
    changelog: str = "first export",
    evaluation: Optional[Path] = None,
    formats: CommaList[str] = (),
    datalist: Optional[Path] = None,
    dataset_dir: Optional[Path] = None,
    cases: PositiveInt = 2,
) -> Outcome:
    """Turn a trained run into a Model Zoo package: OUT/NAME-VERSION/ and its zip.

    The package works alone: with MONAI's bundle commands, in MONAI Label, in a pull request to the Model Zoo. Every
    file in its models/ is loaded in a process of its own and compared with the network that was trained, on patches of
    the run's validation cases; one that differs is not written. A package is a program: others are asked whether they
    trust it before they use it; on this machine it is trusted. docs/export.md has the details.

    Examples:
        python -m bundle export runs/first --out dist
        python -m bundle export runs/first --out dist --formats ts,pt2,onnx
        python -m bundle export runs/first --out dist --version 0.2.0 --changelog "trained on 1251 patients"
        python -m bundle export runs/cv --out dist

    Args:
        run: the folder of a run, of a cross-validation or of a selection. Several runs become one network, the mean of
            their logits.
        ensemble: further runs or cross-validations of the same configuration.
        out: gets the folder and the zip.
        name: in snake_case, with organ, modality and task; by default LABELSCHEME_segmentation.
        version: MAJOR.MINOR.PATCH. Another content needs another version: a higher MAJOR if channels, labels or mask
            values change (MINOR while MAJOR is 0).
        changelog: what is new in this version, in a few words.
        evaluation: the folder with the summary.json of `python -m bundle report`, by default RUN/evaluation.
        formats: in addition to model.pt, any of ts (TorchScript), pt2 (torch.export), onnx.
        datalist: of the cases for the comparison, if the run's own has moved.
        dataset_dir: where its paths start, if they have moved.
        cases: how many of them; two patches are cut from each.
    """
    from bundle.packaging import formats as writers
    from bundle.packaging import package, runs
    from bundle.studies import members

    writers.require_formats(formats)
    trained = runs.read_ensemble(run, members.require_one_configuration([run, *ensemble]))
    name = package.package_name(trained, name, version)
    summary = package.read_summary(trained, evaluation)
    if summary is None:
        print("note: this run has no evaluation, and metadata and model card will say so; --evaluation gives one.")
    if sentence := runs.describe_code_changes(trained, package.ROOT):
        print(f"note: {sentence}")
    plan = package.PackagePlan(trained, name, version, changelog, summary, formats, datalist, dataset_dir, cases)
    written = package.write_package(plan, out, lambda line: print(line, flush=True))

    if written.unchanged:
        print(f"{written.folder} is there already, the same to the last byte.")
    compared = written.metadata["compared"]
    table = Table("file", "largest difference of a logit", "voxels with the same regions")
    table.title = f"compared with the training network, {compared['patches']} patches"
    for file, far in compared["formats"].items():
        table.add_row(f"models/{file}", f"{far['largest_logit_difference']:.2g}", f"{far['label_agreement']:.4%}")
    Console().print(table)
    folder, zipped = written.folder, written.zipped
    print(f"written: {folder} and {zipped} ({zipped.stat().st_size / 1e6:.1f} MB)")
    print(f"sha256 of the package, for those who get it: {written.sha256}")
    print(f"next: python -m bundle serve {folder} --studies DIR, or python -m bundle publish {folder} --out DIR")
    return Outcome(lambda: {"package": str(folder), "zip": str(zipped), "sha256": written.sha256, "compared": compared})
