"""What differs between two versions of a data list, in words."""

from collections.abc import Mapping
from typing import Any

from scripts.data.datalist import all_entries


def describe_datalist_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A phrase for each difference: cases that came, went or moved, files and keys that changed."""
    before, after = ({entry["case"]: entry for entry in all_entries(content)} for content in (old, new))
    found = [f"case {case} is gone" for case in before if case not in after]
    found += [f"case {case} is new" for case in after if case not in before]
    for case in (case for case in before if case in after):
        was, now = before[case], after[case]
        if (place := _place(was)) != _place(now):
            found.append(f"case {case} of patient {was['patient']} was in {place} and is in {_place(now)}")
        differ = [key for key in {**was, **now} if key not in ("fold", "split") and was.get(key) != now.get(key)]
        if differ:
            found.append(f"case {case} has another {', '.join(differ)}")
    for key in sorted({*old, *new} - {"training", "testing", "hashes"}):
        if old.get(key) != new.get(key):
            found.append(f"{key} is another")
    hashes = (old.get("hashes", {}), new.get("hashes", {}))
    found += [f"{file} has another hash" for file in hashes[0] if hashes[0][file] != hashes[1].get(file)]
    return found


def _place(entry: Mapping[str, Any]) -> str:
    if entry.get("split") == "test":
        return "the test set"
    return f"fold {entry['fold']}" if "fold" in entry else "the cases without a label"
