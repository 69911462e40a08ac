"""Fine-tuning through MONAI Label: its cases instead of a data list, and the new weights for its server.

MONAI Label (0.8.5) runs train.yaml with `train::dataset::data` and `validate::dataset::data` replaced by its labelled
cases, {"image": file, "label": file} each; none for validation while fewer than three are labelled.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from scripts.data.datalist import file_hash, name_entry
from scripts.errors import InputError
from scripts.files import atomic_write, write_json
from scripts.workflow import running_config

EXPORTED = "model_exported.pt"  # a longer name than model.pt: MONAI Label offers the shortest first


def labelled_datalist(fold: int, **header: Any) -> dict[str, Any]:
    """A data list of the labelled cases from MONAI Label.

    Args:
        fold: the fold of the cases that select the checkpoint.
        header: of the list: channels, label_scheme, labels, regions.

    Raises:
        InputError: there are none, so a data list is needed.
    """
    config = running_config()
    training, validation = (config[part]["dataset"]["data"] for part in ("train", "validate"))
    if isinstance(training, str):
        raise InputError("datalist is not given: add --datalist ... to the command.")
    in_folds = [(fold + 1, training), (fold, validation or training)]
    entries = [{**name_entry(entry), "fold": k} for k, part in in_folds for entry in part]
    return {**header, "hashes": {}, "training": entries}


def publish_weights(weights: str | os.PathLike, bundle_root: str | os.PathLike) -> None:
    """Copy fine-tuned weights to where the server reads them; the package's own are kept as `EXPORTED`."""
    served = Path(bundle_root) / "models" / "model.pt"
    if served.is_file() and not served.with_name(EXPORTED).exists():
        _copy(served, served.with_name(EXPORTED))
    record = Path(weights).with_name("environment.json")
    if record.is_file():  # for the next training, which starts from these weights
        content = json.loads(record.read_text(encoding="utf-8"))
        write_json(served.with_name(record.name), {**content, "weights": file_hash(weights)})
    _copy(Path(weights), served)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
