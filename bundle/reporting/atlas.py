"""The atlas of errors of a report: where in the brain and in parts of which size the errors are, in words and maps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bundle.analysis.case_errors import KINDS, measure_case_errors
from bundle.analysis.error_atlas import ErrorAtlas, pool_errors
from bundle.analysis.evaluation import Evaluation
from bundle.analysis.scored_scans import Scans, find_case_files
from bundle.drawing.error_maps import draw_error_maps
from bundle.reporting.page import embed_png
from bundle.reporting.places import name_place
from bundle.reporting.words import format_amount, join_words, plural
from scripts.parallel import map_in_processes

FEW = 8  # cases that one process reads faster than several start
NO_FRAME = "these cases are pictures or single slices, which cannot be laid on each other"


class Atlas(NamedTuple):
    """The section of a page: numbers for summary.json, one picture and its sentences per region."""

    about: dict[str, Any]
    pictures: dict[str, str]
    sentences: dict[str, list[str]]


def make_atlas(evaluation: Evaluation, scans: Scans) -> Atlas | None:
    """Read all labels and masks, and describe where the errors are; None for pictures and single slices.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    files = find_case_files(evaluation, scans, evaluation.scored_cases)
    workers = 1 if len(files) < FEW else None
    measured = map_in_processes(measure_case_errors, files, workers, desc="locating errors", unit="case")
    found = [case for case in measured if case is not None]
    if not found:
        return None
    atlas = pool_errors(found)
    return Atlas(atlas.describe(), _pictures(atlas), describe_errors(atlas.describe()))


def describe_errors(about: Mapping[str, Any]) -> dict[str, list[str]]:
    """Where most patients err, a sentence per kind of error, by region."""
    return {
        region: [_sentence(region, kind, own[kind], about) for kind in KINDS]
        for region, own in about["regions"].items()
    }


def _sentence(region: str, kind: str, own: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    what = f"{region}, {kind}"
    if not own["places"]:
        return f"{what}: no patient has {about['place_ml']} ml of it at one place."
    first = own["places"][0]
    many = len(first["patients"])
    where = f"{plural(many, 'patient')} of {about['patients']} {'has' if many == 1 else 'have'} it"
    size = f"{format_amount(first['ml'])} of {format_amount(own['ml'])} ml"
    names = join_words(first["patients"], 12)
    if many == 1:
        return (
            f"{what}: no place is common to two patients; most of it is {name_place(first['place'])} ({names}, {size})."
        )
    return (
        f"{what}: {where} {name_place(first['place'])} ({size}; {region} is there in {first['with_region']}): {names}."
    )


def _pictures(atlas: ErrorAtlas) -> dict[str, str]:
    by_region: dict[str, dict[str, Any]] = {}
    for own in atlas.maps:
        by_region.setdefault(own.region, {})[own.kind] = own.share
    return {
        region: embed_png(draw_error_maps(shares, atlas.brain, atlas.size.tolist()))
        for region, shares in by_region.items()
    }
