"""The `serve` command: serve a package to 3D Slicer by MONAI Label, on this machine."""

import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bundle.commands.arguments import Optional, check_arguments
from bundle.commands.shared import ask_user
from scripts.errors import InputError
from scripts.files import read_mapping
from scripts.inference.worker_process import WorkerProcess
from scripts.progress import progress_bar


@check_arguments
def serve(
    package: Path,
    *,
    studies: Path,
    port: Annotated[int, Field(ge=1, le=65535)] = 8000,
    monailabel: Optional[str] = None,
    show: Optional[str] = None,
    order: Literal["name", "quality"] = "name",
    out: Optional[Path] = None,
    trust: bool = False,
    with_: Optional[Literal["nninteractive", "sam2", "medsam"]] = None,
    channel: Optional[str] = None,
    weights: Optional[Path] = None,
) -> None:
    """Serve an exported package by MONAI Label, so that 3D Slicer shows its masks and trains it on corrected ones.

    Nothing is installed, and neither the package nor the scans are changed: the server works on a copy of the package
    and on links to the scans, in a folder that is kept. So labels and fine-tuned weights are there at the next start.
    Only this machine can reach it. Ctrl-C ends it. A package is a program: the server runs its code. A network of the
    recipe clicks is served twice: as the automatic model, and as one that is corrected by clicks.
    docs/monai-label.md leads from a package to a mask in Slicer.

    Examples:
        python -m bundle serve dist/brats-1.0.0 --studies /data/new_patients --monailabel .venv-monailabel
        python -m bundle serve dist/brats-1.0.0 --studies /data/new_patients --show FLAIR --port 8001
        python -m bundle serve dist/brats-1.0.0 --studies /data/new_patients --order quality
        python -m bundle serve dist/brats-1.0.0 --studies /data/new_patients --with nninteractive --channel FLAIR

    Args:
        package: the folder that `python -m bundle export` made.
        studies: a folder of patients, as `--input` of the inference workflow takes it.
        port: where the server listens.
        monailabel: the virtual environment with MONAI Label, or its python; by default this python, or the `monailabel`
            on the PATH.
        show: the channel that Slicer shows; the first one by default. The network gets all of them.
        order: of the scans, for the strategy first of Next Sample: by name, or by quality, which segments all of them
            first and numbers them, those of the lowest predicted Dice in front, or of the highest entropy at the border
            of their masks where the package has no calibration (docs/corrections.md).
        out: the folder of the server; by default runs/served/<package>.
        trust: the package is trusted: its code and configs may run with your rights. Without it you are asked at the
            first use; it is remembered until a file of the package changes.
        with_: also serve a public model that segments what is clicked, nninteractive, sam2 or medsam (docs/prompt.md);
            its packages are installed next to MONAI Label.
        channel: the one that it sees.
        weights: the file or folder of its weights; without it its library fetches them.
    """
    from bundle.packaging import click_model, package_check, prompt_model
    from bundle.packaging import monai_label_server as servers

    package_check.check_package(package, trust, ask_user)
    source = package.resolve()
    settings = read_mapping(source / "configs" / "inference.yaml")
    shown = servers.find_scans(studies, settings["channels"], settings["channel_files"], show)
    python, version = servers.find_python(monailabel)
    if version != servers.TESTED:
        print(f"note: {python} has MONAI Label {version}; this was tried with {servers.TESTED}.")
    servers.require_free_port(port)
    work = out or Path("runs", "served", source.name)
    folder = servers.prepare_folder(work, source, python, studies)
    prompted = []
    if with_:
        prompted = [prompt_model.write_prompt_model(folder.model, python, settings, with_, channel, weights)]
    masks = folder.path / "masks" / folder.studies.name
    names = _number_by_quality(folder.model, studies, masks) if order == "quality" else None
    servers.link_scans(folder, shown, names)
    clicked = [click_model.write_click_model(folder.model)] if click_model.takes_clicks(folder.model) else []
    models = [source.name, *clicked, *prompted]

    print(f"starting MONAI Label with {source.name}, its log is {folder.log} ...", flush=True)
    with servers.running_server(folder, python, port, models) as server:
        info = servers.wait_for_answer(server, port, models, folder.log)
        url = f"http://{servers.HOST}:{port}"
        segments = ", ".join(info["models"][source.name]["labels"])
        clicks = "".join(
            f"clicks:  model {name}, on {', '.join(info['models'][name]['labels'])}: SmartEdit/Deepgrow > Model\n"
            for name in models[1:]
        )
        print(
            f"\nMONAI Label serves {source.name} at {url}: {info['datastore']['total']} scans, segments {segments}.\n"
            f"In 3D Slicer: module MONAI Label, MONAI Label server {url}, Next Sample, Auto Segmentation > Run.\n"
            f"{clicks}"
            f"labels:  {folder.studies / 'labels'}\n"
            f"weights: {folder.model / 'models'} (training overwrites model.pt there; the package stays as it is)\n"
            "Ctrl-C ends it.",
            flush=True,
        )
        server.wait()
        raise InputError(
            f"MONAI Label ended by itself; the end of {folder.log}:\n{servers.read_last_lines(folder.log)}"
        )


def _number_by_quality(model: Path, studies: Path, masks: Path) -> dict[str, str]:
    """The names of the scans, numbered by the quality of their masks, of which those of former starts are kept."""
    from bundle.packaging.scan_order import number_scans, rank_scans

    began = time.monotonic()
    print(f"segmenting the scans of {studies}, to order them by quality ...", flush=True)
    with closing(WorkerProcess([model], {"output_dir": str(masks)})) as worker:
        replies = worker.ask({"input": str(studies.resolve()), "resume": True})
        numbers = next(replies)
        ranking = rank_scans(progress_bar(replies, total=numbers["cases"], desc="segmenting", unit="case"))
    for case, reason in ranking.refused.items():
        print(f"not segmented, so it comes last: {case}: {reason}")
    print(
        f"ordered by {ranking.criterion}: {len(ranking.cases)} scans in {time.monotonic() - began:.0f} s,"
        f" {numbers['finished']} of them with a mask of a former start"
    )
    return number_scans(ranking.cases)
