"""The process that segments for another one: it loads the network once, then answers requests until there are no more.

Requests are lines of JSON on stdin, replies are lines of JSON on stdout, each after the sign that RFC 7464 sets before
a text of JSON, so that what else is printed is not taken for one. `scripts.inference.worker_process` is the other side.

Requests:  {"input": a folder, file or data list} or {"cases": [{"case": name, "image": file or files}]}, with "resume";
           {"finish": true}, for the numbers of all processes of torchrun.
Replies:   {"ready": settings}; for a request {"cases": number, "finished": number}, then for each case either
           {"case", "image", "masks": files, "checks", "numbers", "predicted_dice", "kept"} or {"case", "image",
           "refused": sentence, "checks"}, at the end {"done": number}; {"error": sentence} for a request that cannot be
           answered; {"cases", "refused"}, numbers.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monai.engines import SupervisedEvaluator

from scripts import distributed
from scripts.errors import input_error_message
from scripts.inference.mask_records import MaskRecords
from scripts.inference.mask_saver import MaskSaver
from scripts.inference.prefetch import PrefetchedDataset
from scripts.inference.scans import own_cases, unsegmented_cases

RECORD_SEPARATOR = "\x1e"  # RFC 7464


def answer_requests(
    evaluator: SupervisedEvaluator,
    prepared: PrefetchedDataset,
    handlers: Sequence[Any],
    records: MaskRecords,
    find: Callable[[str], list[dict[str, Any]]],
    settings: Mapping[str, Any],
    predict: Callable[[Mapping[str, Any]], dict[str, dict[str, Any]]],
) -> None:
    """Answer requests from stdin until it ends; see this module's first lines.

    Args:
        evaluator: segments the cases of `prepared`.
        prepared: gets the cases of each request.
        handlers: of the evaluator, with the `MaskSaver`.
        records: of the folder that masks are written to.
        find: the cases of an input, as `scripts.inference.scans.find_input_scans` gives them.
        settings: for the first reply: what the other process must know of the network.
        predict: the Dice of each region from the numbers of a mask.
    """
    saver = next(handler for handler in handlers if isinstance(handler, MaskSaver))

    def send_case(entry: Mapping[str, Any], kept: bool = False) -> None:
        numbers = entry.get("numbers")
        send_reply({**entry, "predicted_dice": {} if numbers is None else predict(numbers), "kept": kept})

    saver.on_saved = send_case
    prepared.on_refused = send_reply
    counts = {"cases": 0, "refused": 0}
    send_reply({"ready": dict(settings)})
    for request in read_requests():
        if request.get("finish"):
            everywhere = distributed.gather_items([counts])
            send_reply({name: sum(part[name] for part in everywhere) for name in counts})
            continue
        try:
            cases = own_cases(partial(_find_requested, request, find))
            left = unsegmented_cases(cases, records, bool(request.get("resume")))
        except Exception as error:
            if (sentence := input_error_message(error)) is None:
                raise
            send_reply({"error": sentence})
            continue
        waiting = {entry["case"] for entry in left}
        kept = [entry for entry in cases if entry["case"] not in waiting]
        send_reply({"cases": len(cases), "finished": len(kept)})
        for entry in kept:
            send_case({**records.read(entry["case"]), "image": entry["image"]}, kept=True)
        saver.images = {entry["case"]: entry["image"] for entry in left}
        prepared.replace_cases(left)
        evaluator.state.epoch_length = len(left)
        if left:
            evaluator.run()
        counts["cases"] += len(cases)
        counts["refused"] += len(prepared.refused)
        send_reply({"done": len(cases)})


def _find_requested(request: Mapping[str, Any], find: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return request["cases"] if "cases" in request else find(request["input"])


def read_requests() -> Iterator[dict[str, Any]]:
    """The requests on stdin, one per line, until it ends."""
    for line in sys.stdin:
        if line.strip():
            yield json.loads(line)


def send_reply(content: Mapping[str, Any]) -> None:
    """Write one reply to stdout; threads do not mix their lines, since a line is one write."""
    sys.stdout.write(f"{RECORD_SEPARATOR}{json.dumps(content, default=_as_text)}\n")
    sys.stdout.flush()


def parse_reply(line: str) -> dict[str, Any] | None:
    """The reply in a line of stdout; None where the line is another text."""
    return json.loads(line[1:]) if line.startswith(RECORD_SEPARATOR) else None


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, Path) else repr(value)
