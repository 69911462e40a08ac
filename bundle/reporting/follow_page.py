"""The page of a follow-up, `follow.html`, and its table, `follow.csv`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.drawing.answer_planes import region_colours
from bundle.drawing.time_courses import draw_course
from bundle.reporting.page import embed_png, load_template
from bundle.reporting.sentences import describe_regions
from bundle.reporting.words import plural
from scripts.files import write_text
from scripts.scoring.tables import write_table

SHOWN_LESIONS = 8  # rows of the table by region; follow.json has all
SIZES = ("volume_ml", "diameter_mm", "perpendicular_mm", "product_mm2")
CHANGES = {
    f"{measure.split('_')[0]}_change_since_{since}_percent": (measure, since)
    for measure in ("volume_ml", "product_mm2")
    for since in ("baseline", "nadir")
}


def write_follow_page(
    path: Path, record: Mapping[str, Any], rows: Iterable[tuple[str, Sequence[tuple[bytes, str]]]]
) -> None:
    """Write the page of a follow-up, whole or not at all; it needs no other file and no network.

    Args:
        path: the file.
        record: the content of follow.json.
        rows: of pictures: a heading, and the PNG of each time point with its caption.
    """
    compared = [point for point in record["time_points"] if point["compared"]]
    days, regions = [point["day"] for point in compared], [*record["regions"]]
    course = {
        "operations": [day for day in record["operations"] or () if days[0] <= day <= days[-1]],
        "left_out": [point["day"] for point in record["time_points"] if not point["compared"]],
    }
    figures = [
        draw_course(
            days, {name: [point["regions"][name][key] for point in compared] for name in regions}, label, **course
        )
        for key, label in (("volume_ml", "volume, ml"), ("diameter_mm", "longest diameter, mm"))
    ]
    page = load_template("follow.html").render(
        r=record,
        compared=compared,
        colours=region_colours(regions),
        figures=figures,
        lesions=[lesion for lesion in record["lesions"] if lesion["number"] <= SHOWN_LESIONS],
        findings=list_findings(record),
        rows=[(heading, [(embed_png(png), words) for png, words in pictures]) for heading, pictures in rows],
        meanings=describe_regions(record["regions"]),
    )
    write_text(path, page)


def list_findings(record: Mapping[str, Any]) -> list[str]:
    """What changed, in sentences: thresholds that are met, lesions that are new or gone."""
    found = []
    for point in record["time_points"]:
        for name, region in point["regions"].items():
            for met in region.get("thresholds", ()):
                change = "from 0" if met["change_percent"] is None else f"{met['change_percent']:+.0f} %"
                found.append(
                    f"Day {point['day']}, {name}: the change meets the size threshold \u201c{met['name']}\u201d"
                    f" ({change} since day {met['since_day']})."
                )
    days = [point["day"] for point in record["time_points"] if point["compared"]]
    operations = record["operations"] or ()
    after = {day for before, day in pairwise(days) if any(before < operation < day for operation in operations)}
    times = [(lesion, time) for lesion in record["lesions"] for time in lesion["times"]]
    for event in ("new", "gone", "back"):
        for lesion, time in times:
            if time["event"] == event:
                size = f", {time['volume_ml']:.2f} ml" if time["parts"] else ""
                across = ", across an operation" if time["day"] in after else ""
                found.append(
                    f"Day {time['day']}, {lesion['region']}: lesion {lesion['number']} is {event}{size}{across}."
                )
    unsure = Counter(time["day"] for _, time in times if time["event"] == "uncertain")
    for day, count in sorted(unsure.items()):
        found.append(f"Day {day}: {plural(count, 'lesion')} may be new or gone, too small or too near the edge to say.")
    return found


def write_follow_table(path: Path, record: Mapping[str, Any]) -> None:
    """Write a row for each time point and region, and for each lesion of it."""
    rows = []
    for point in record["time_points"]:
        for name, region in point["regions"].items():
            changes = {
                column: region["changes"].get(measure, {}).get(since) if "changes" in region else None
                for column, (measure, since) in CHANGES.items()
            }
            about = {"day": point["day"], "state": point["state"], "region": name}
            rows.append({**about, "lesion": "all", "event": "", **{key: region[key] for key in SIZES}, **changes})
            for lesion in (one for one in record["lesions"] if one["region"] == name):
                time = next(time for time in lesion["times"] if time["day"] == point["day"])
                sizes = {key: time[key] for key in SIZES}
                rows.append({**about, "lesion": lesion["number"], "event": time["event"], **sizes})
    write_table(pd.DataFrame(rows, columns=["day", "state", "region", "lesion", "event", *SIZES, *CHANGES]), path)
