"""Answers for all scans of an input, as `segment` gives them: one process, a progress bar, a closing table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column
from tqdm import tqdm

from bundle.commands.raw_scans import answer_raw_scans, find_raw_scans, list_licences, preparation
from bundle.commands.shared import Outcome, print_lines, score_table
from bundle.dicom.cases import AnsweredStudy, answer_studies, is_dicom_input, name_studies, write_identities
from bundle.dicom.segmentation import write_dicom_seg
from bundle.dicom.stacks import SliceStack, read_studies
from bundle.packaging.provenance import describe_network
from bundle.raw.options import RawOptions
from bundle.reporting.answers import AnswerWriter
from scripts import stopping
from scripts.data.images import read_image
from scripts.errors import EXIT_SOME_FAILED, InputError
from scripts.files import make_folder
from scripts.inference.predicted_dice import describe_prediction
from scripts.inference.worker_process import WorkerProcess
from scripts.progress import progress_bar

DICOM_SEG = "mask.seg.dcm"
PRINTED = ("series", "preparation", "co-registration", "brain mask")  # checks whose sentences the terminal shows


class AnswerRequest(NamedTuple):
    """What `segment` was asked for; see its arguments.

    `sources` are a package or runs of one configuration; `channels` has the series of a channel by its name; `raw` says
    how raw scans are prepared.
    """

    sources: Sequence[Path]
    input: Path
    out: Path
    dataset_dir: Path | None
    resume: bool
    requeue: bool
    identify: bool
    channels: Mapping[str, str]
    dicom_seg: bool
    settings: Mapping[str, Any]
    raw: RawOptions | None = None


def answer_scans(request: AnswerRequest) -> Outcome:
    """Segment all scans by one process, and write the answer of each while the next is segmented.

    Raises:
        InputError: an argument is wrong, all scans are refused, or something cannot be written.
    """
    stopping.catch_signals(request.requeue)
    stopping.set_how_to_continue("continue with --resume")
    dicom = is_dicom_input(request.input)
    if not dicom and (request.channels or request.dicom_seg):
        option = "--channels" if request.channels else "--dicom_seg"
        raise InputError(f"{option} is for DICOM, which {request.input} does not hold: leave it out.")
    out, network = request.out.resolve(), describe_network(request.sources)
    make_folder(out)  # before the network is loaded
    cases = name_studies(read_studies(request.input), out) if dicom else {}
    if request.identify and cases:
        print(f"patients are named in {write_identities(cases, out)}, which only you can read")
    writer = AnswerWriter(out, network, request.identify)
    given = {"output_dir": str(out)}
    given |= {"dataset_dir": str(request.dataset_dir.resolve())} if request.dataset_dir else {}
    print(f"loading {network['name']} from {', '.join(map(str, request.sources))} ...", flush=True)
    answers = []
    with ExitStack() as closer:
        worker = closer.enter_context(closing(WorkerProcess(request.sources, {**given, **request.settings})))
        writer.settings = worker.settings
        bar = closer.enter_context(progress_bar(desc="segmenting", unit="case", leave=True))
        if dicom:
            bar.total = len(cases)
            prepare = preparation(request.raw, worker, out, bar.set_postfix_str, len(cases)) if request.raw else None
            replies = answer_studies(worker, cases, request.channels, request.resume, prepare)
        elif request.raw:
            found = find_raw_scans(worker, request.input.resolve(), request.dataset_dir, out, request.resume)
            bar.total = len(found)
            prepare = preparation(request.raw, worker, out, bar.set_postfix_str, len(found))
            replies = answer_raw_scans(worker, found, prepare, request.resume)
        else:
            numbers, replies = _answer_files(worker, request)
            bar.total = numbers["cases"]
        for reply, source in replies:
            answers.append(answer := writer.write(reply))
            written = reply.get("kept") and (out / reply["case"] / DICOM_SEG).is_file()
            if request.dicom_seg and source is not None and not written:
                _write_seg(out, answer, source, worker.settings, network)
            bar.update()
        bar.close()
        worker.gather_counts()  # under torchrun a process that ends stops the others
    refused = [answer for answer in answers if answer["refusal"]]
    if answers and len(refused) == len(answers):
        sentence, case = refused[0]["refusal"], refused[0]["case"]
        many = f"none of the {len(answers)} cases could be segmented; {case}: {sentence}"
        raise InputError(sentence if len(answers) == 1 else many)
    _print_answers(answers, out, network)
    if request.dicom_seg:
        print(f"DICOM SEG: {out}/<case>/{DICOM_SEG}, which holds the name, ID and dates of the patient")
    return Outcome(lambda: {"answers": answers}, EXIT_SOME_FAILED if refused else 0)


def _answer_files(worker: WorkerProcess, request: AnswerRequest) -> tuple[dict[str, int], Iterator[AnsweredStudy]]:
    """The numbers of cases of an input of files, and the replies for them."""
    replies = worker.ask({"input": str(request.input.resolve()), "resume": request.resume})
    numbers = next(replies)
    if numbers["finished"]:
        tqdm.write(f"{numbers['finished']} of {numbers['cases']} cases are segmented already")
    return numbers, (AnsweredStudy(reply, None) for reply in replies)


def _write_seg(
    out: Path, answer: Mapping[str, Any], source: SliceStack, settings: Mapping[str, Any], network: Mapping[str, Any]
) -> None:
    """Write the mask of a case as DICOM SEG; an empty one has none."""
    mask = read_image(out / answer["case"] / answer["mask"])
    if mask.voxels.any():
        assert mask.affine is not None
        by_value = {value: name for name, value in {**answer["mask_values"], **settings["labels"]}.items()}
        labels = {name: value for value, name in by_value.items()}
        write_dicom_seg(out / answer["case"] / DICOM_SEG, mask.voxels, mask.affine, labels, source, network)


def _print_answers(answers: list[Mapping[str, Any]], out: Path, network: Mapping[str, Any]) -> None:
    console = Console()
    regions = list(dict.fromkeys(name for answer in answers for name in answer.get("regions", {})))
    left = [Column("case", overflow="fold"), Column("verdict")]
    table = score_table("Answers", *left, *(f"{name} ml" for name in regions), "lesions")
    for answer in answers:
        volumes = [answer.get("regions", {}).get(name, {}) for name in regions]
        cells = [f"{own['volume_ml']:.2f}" if own else "" for own in volumes]
        lesions = "" if answer["refusal"] else str(max((own["lesions"] for own in volumes), default=0))
        table.add_row(answer["case"], answer["verdict"], *cells, lesions)
    console.print(table)
    for answer in answers:
        shown = [check["sentence"] for check in answer["checks"] if check["name"] in PRINTED]
        print_lines(console, [f"{answer['case']}: {sentence}" for sentence in shown])
    masks = [answer for answer in answers if not answer["refusal"]]
    predicted = {answer["case"]: describe_prediction(answer["predicted_dice"]) for answer in masks}
    if len(predicted) > 1 and len({*predicted.values()}) == 1:  # of a network without a calibration
        predicted = {"all": next(iter(predicted.values()))}
    print_lines(console, [f"{case}: {words}" for case, words in predicted.items() if words])
    refused = [f"  {answer['case']}: {answer['refusal']}" for answer in answers if answer["refusal"]]
    noted = [f"  {answer['case']}: {warning}" for answer in answers for warning in answer["warnings"]]
    lines = [f"{len(refused)} of {len(answers)} cases could not be segmented:", *refused] if refused else []
    lines += ["warnings:", *noted] if noted else []
    for name, terms in {**network["licences"], **list_licences(answers)}.items():
        lines.append(f"terms of the {name}: {terms}")
    print_lines(console, [*lines, f"answers: {out}/<case>/answer.html, masks: {out}/<case>.nii.gz"])
