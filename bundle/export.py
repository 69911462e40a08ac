"""How does a trained run become a package that other people's software opens? The `export` command."""

from __future__ import annotations

import ast
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bundle import packages
from bundle.packaging import archive, runs
from bundle.packaging.metadata import VERSION
from scripts.errors import InputError
from scripts.files import write_json, write_text

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
TAKEN = ("detection", "deepedit")  # MONAI Label chooses what a model does by these words in its name
COPIED = ("LICENSE", "configs/multi_gpu_train.yaml", "configs/logging.conf")


def export(
    run: str,
    out: str = "dist",
    name: str | None = None,
    version: str = "0.1.0",
    changelog: str = "first export",
    evaluation: str | None = None,
    formats: Sequence[str] | str = (),
    datalist: str | None = None,
    dataset_dir: str | None = None,
    cases: int = 2,
) -> None:
    """Turn a trained run into a Model Zoo package: OUT/NAME-VERSION/ and its zip.

    The package works alone: with MONAI's bundle commands, in MONAI Label, in a pull request to the Model Zoo. Every
    file in its models/ is loaded in a process of its own and compared with the network that was trained, on patches of
    the run's validation cases; one that differs is not written. docs/export.md tells more.

    Examples:
        python -m bundle export runs/first --out dist
        python -m bundle export runs/first --out dist --formats ts,pt2,onnx
        python -m bundle export runs/first --out dist --version 0.2.0 --changelog "trained on 1251 patients"

    Args:
        run: the run's folder.
        out: gets the folder and the zip.
        name: in snake_case, with organ, modality and task; by default LABELSCHEME_segmentation.
        version: MAJOR.MINOR.PATCH. Another content needs another version: a higher MAJOR if channels, labels or mask
            values change (MINOR while MAJOR is 0).
        changelog: what is new in this version, in a few words.
        evaluation: the folder with the summary.json of `python -m bundle report`, by default RUN/evaluation.
        formats: beside model.pt: any of ts (TorchScript), pt2 (torch.export), onnx.
        datalist: of the cases for the comparison, if the run's own has moved.
        dataset_dir: where its paths start, if they have moved.
        cases: how many of them; two patches are cut from each.
    """
    from bundle.packaging import formats as writers

    if isinstance(cases, bool) or not isinstance(cases, int) or cases < 1:
        raise InputError(f"--cases is {cases}: give a whole number of cases, 1 or more.")
    formats = [part.strip() for part in formats.split(",")] if isinstance(formats, str) else [str(f) for f in formats]
    writers.require(formats)
    trained = runs.read(run)
    name = str(name or f"{re.sub(r'[^a-z0-9]+', '_', str(trained.knobs['label_scheme']).lower())}_segmentation")
    _check_name(name, str(version))
    summary = _summary(trained, evaluation)
    target = Path(out) / f"{name}-{version}"
    earlier = _earlier(Path(out), name, str(version))
    if sentence := runs.changed_since(trained, ROOT):
        print(f"note: {sentence}")

    changes = {**earlier.get("changelog", {}), str(version): str(changelog)}
    where = datalist, dataset_dir, cases
    try:
        metadata = _place(target, earlier, lambda package: _write(package, trained, summary, changes, formats, where))
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}): free space there, or choose another --out."
        ) from error
    _tell(metadata, target)


def _place(target: Path, earlier: Mapping[str, Any], write: Callable[[Path], None]) -> dict[str, Any]:
    """Write the package whole or not at all, and its zip; returns its metadata."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as unfinished:
        package = Path(unfinished, target.name)
        write(package)
        metadata = packages.check(package)
        _check_version(metadata, earlier)
        if not target.exists():
            package.rename(target)
        elif archive.same_files(package, target):
            print(f"{target} is there already, the same to the last byte.")
        else:
            raise InputError(f"{target} holds another content: give a higher --version, or delete it.")
    archive.zip_folder(target, _zip_of(target))
    return metadata


def _write(
    package: Path,
    run: runs.Run,
    summary: Mapping[str, Any] | None,
    changelog: Mapping[str, str],
    formats: Sequence[str],
    where: tuple[str | None, str | None, int],
) -> None:
    from bundle.packaging import card, compared, configs, metadata, networks
    from bundle.packaging import formats as writers
    from scripts.checkpoint import read_weights, save
    from scripts.datalist import file_hash

    knobs = run.knobs
    for file in (*COPIED, *travelling_scripts()):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, package / file)
    head = (
        f"Made by `python -m bundle export`: the workflow's own file, with the values of a training on"
        f" {run.about.get('title', knobs['label_scheme'])}\n"
        f"(revision {run.environment.get('git') or 'unknown'}, seed {run.environment.get('seed')}) in place of tasks,"
        " recipes and what was borrowed from inference.yaml."
    )
    for file, text in configs.self_contained(ROOT / "configs", knobs, run.config, head).items():
        write_text(package / "configs" / file, text)
    save(package / "models" / "model.pt", read_weights(run.weights))
    base = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    version = list(changelog)[-1]
    told = metadata.of_run(base, run, version, changelog, summary)
    write_json(package / "configs" / "metadata.json", told)

    network = networks.at_inference(package)
    patches, chosen = networks.patches(run, *where)
    logits = networks.training_logits(run, patches)
    print(f"writing {', '.join(f'model.{ending}' for ending in ('pt', *formats))} ...", flush=True)
    writers.write(package, network, patches, formats, metadata.multiple_of(knobs))
    print(f"comparing on {len(patches)} patches, in a process of its own ...", flush=True)
    told["compared"] = {
        "cases": chosen,
        "patches": len(patches),
        "formats": compared.compare(package, patches.numpy(), logits.numpy()),
    }
    told["weights"] = {f"models/{path.name}": file_hash(path) for path in archive.files_of(package / "models")}
    write_text(package / "configs" / "metadata.json", json.dumps(told, indent=4, ensure_ascii=False) + "\n")
    parameters = sum(p.numel() for p in network.parameters())
    write_text(
        package / "docs" / "README.md", card.render(run, told, summary, parameters, package.name.rpartition("-")[0])
    )
    for leftover in package.rglob("__pycache__"):
        shutil.rmtree(leftover)


def travelling_scripts() -> list[str]:
    """The modules of scripts/ that the workflows name, and those that these import."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "configs").glob("*.yaml")]
    waiting = {name for text in texts for name in re.findall(r"scripts\.[\w.]+", text)}
    found = {"scripts/__init__.py"}
    while waiting:
        for path in _files_of(waiting.pop()) - found:
            found.add(path)
            waiting |= _imports(ROOT / path)
    return sorted(found)


def _files_of(name: str) -> set[str]:
    """Of the modules and packages that a dotted name passes through; what is in a module may end it."""
    words = name.split(".")
    places = ("/".join(words[:count]) for count in range(2, len(words) + 1))
    return {path for place in places for path in (f"{place}.py", f"{place}/__init__.py") if (ROOT / path).is_file()}


def _imports(path: Path) -> set[str]:
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scripts"
        for alias in node.names
    }


def _check_name(name: str, version: str) -> None:
    if not NAME.match(name):
        raise InputError(f"name is '{name}': expected snake_case, such as brats_mri_segmentation.")
    if taken := [word for word in TAKEN if word in name]:
        raise InputError(
            f"name is '{name}': MONAI Label would take a model with '{taken[0]}' in its name for another kind."
        )
    if not VERSION.match(version):
        raise InputError(f"version is '{version}': expected MAJOR.MINOR.PATCH, such as 0.2.0.")


def _summary(run: runs.Run, evaluation: str | None) -> dict[str, Any] | None:
    """The evaluation's summary.json; it must be of these very weights."""
    folder = Path(evaluation) if evaluation else run.folder / "evaluation"
    path = folder if folder.suffix == ".json" else folder / "summary.json"
    if not path.is_file():
        if evaluation or (folder / "cases.csv").is_file():
            raise InputError(f"there is no {path}: make it by `python -m bundle report {folder}`.")
        print("note: no evaluation is known, and metadata and model card will say so; --evaluation names one.")
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        judged = summary["about"].get("sha256")
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no summary of an evaluation: make it by `python -m bundle report`.") from error
    if judged is None:
        raise InputError(
            f"{path} does not tell which weights were judged: judge {run.weights} by the evaluating workflow, then make"
            " the report."
        )
    if judged != run.sha256:
        raise InputError(f"{path} is of other weights than {run.weights}: judge these, then make the report.")
    return summary


def _earlier(out: Path, name: str, version: str) -> dict[str, Any]:
    """The metadata of the highest version of the package in `out`, apart from the one that is made."""
    found = {}
    for path in out.glob(f"{name}-*/configs/metadata.json"):
        other = path.parents[1].name.removeprefix(f"{name}-")
        if VERSION.match(other) and other != version:
            found[_numbers(other)] = path
    if not found:
        return {}
    newest = max(found)
    if newest > _numbers(version):
        raise InputError(
            f"{out} holds version {'.'.join(map(str, newest))} of {name}: give a higher --version than that."
        )
    return json.loads(found[newest].read_text(encoding="utf-8"))


def _check_version(metadata: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """What goes in and what comes out may only change with the number that says so."""
    if not earlier or metadata["network_data_format"] == earlier["network_data_format"]:
        return
    new, old = _numbers(metadata["version"]), _numbers(earlier["version"])
    place = 0 if old[0] else 1
    if new[place] == old[place]:
        raise InputError(
            f"version {metadata['version']} takes or gives something else than {earlier['version']} (channels, regions,"
            f" mask values or sizes): give a higher {('MAJOR', 'MINOR')[place]} number."
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _zip_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.zip")


def _tell(metadata: Mapping[str, Any], target: Path) -> None:
    table = Table(title=f"compared with the training network, {metadata['compared']['patches']} patches")
    for title in ("file", "largest difference of a logit", "voxels with the same regions"):
        table.add_column(title)
    for name, far in metadata["compared"]["formats"].items():
        table.add_row(f"models/{name}", f"{far['largest_logit_difference']:.2g}", f"{far['label_agreement']:.4%}")
    Console().print(table)
    zipped = _zip_of(target)
    print(f"written: {target} and {zipped} ({zipped.stat().st_size / 1e6:.1f} MB)")
    print(f"next: python -m bundle serve {target} --studies DIR, or python -m bundle publish {target} --to DIR")
