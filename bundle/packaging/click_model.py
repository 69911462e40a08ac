"""The click model of a MONAI Label server: a second folder that shares weights and code with the automatic model.

MONAI Label takes a model whose name contains "deepgrow" for one that is clicked on, region by region.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.files import read_mapping, write_json

SUFFIX = "_deepgrow"
SHARED = ("models", "scripts")  # links: a fine-tuning of the automatic model reaches the clicks
# the keys that MONAI Label reads become parts of the click model under other names
RENAMED = {"preprocessing": "scan_preprocessing", "inferer": "window_inferer"}
UNUSED = ("postprocessing", "labelling", "quality", "records", "dataset", "dataloader", "handlers", "answer_settings")
UNUSED += ("evaluator", "initialize", "inferring", "run", "answering", "check")
OWN_SESSION = {
    "_target_": "scripts.inference.click_session.ClickSession",
    "_mode_": "callable",
    "inferer": "@window_inferer",
    "preprocessing": "@scan_preprocessing",
    "decision": "@region_decision",
}


def takes_clicks(package: Path) -> bool:
    """Whether the network of a package was trained with clicks, and its code can serve them."""
    channels = read_mapping(package / "configs" / "inference.yaml").get("window_channels") or {}
    can_serve = (package / "scripts" / "inference" / "click_server.py").is_file()
    return can_serve and str(channels.get("_target_")).endswith(".ClickChannels")


def write_click_model(model: Path, session: Mapping[str, Any] = OWN_SESSION, suffix: str = SUFFIX) -> str:
    """Write the click model next to an automatic one, in place of a former one; returns its name.

    Args:
        model: the folder of the automatic model, a package.
        session: a config that makes a `scripts.inference.click_server.Session` when it is called with a prepared case,
            and with `network` and `device`: by default the package's own network. That of another promptable model has
            `_mode_: callable`, and may refer to any setting of inference.yaml.
        suffix: of the name; it contains "deepgrow".
    """
    settings = read_mapping(model / "configs" / "inference.yaml")
    config = {RENAMED.get(key, key): value for key, value in settings.items() if key not in UNUSED}
    config["clicks"] = {
        "_target_": "scripts.inference.click_server.ClickServer",
        "prepare": "@scan_preprocessing",
        "make_session": dict(session),
        "regions": "$list(@regions)",
    }
    config["preprocessing"] = {"_target_": "Compose", "transforms": ["$@clicks.read_request"]}
    config["inferer"] = "$@clicks.click"
    config["postprocessing"] = {"_target_": "Compose", "transforms": ["$@clicks.write_answer"]}
    metadata = json.loads((model / "configs" / "metadata.json").read_text(encoding="utf-8"))
    segments = {str(number): name for number, name in enumerate(["background", *settings["regions"]])}
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = segments
    metadata["description"] = f"Correction by clicks: {metadata.get('description', '')}"

    made = model.with_name(model.name + suffix)
    unfinished = model.with_name(f".{made.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "configs").mkdir(parents=True)
    write_json(unfinished / "configs" / "inference.json", config)
    write_json(unfinished / "configs" / "metadata.json", metadata)
    for name in SHARED:
        (unfinished / name).symlink_to(Path("..", model.name, name))
    shutil.rmtree(made, ignore_errors=True)
    unfinished.rename(made)
    return made.name
