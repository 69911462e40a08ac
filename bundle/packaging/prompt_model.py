"""The model of a MONAI Label server that is a public promptable one, next to the automatic model of a package."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.packaging.click_model import SUFFIX, write_click_model
from scripts.errors import InputError

SERVING = Path("scripts", "inference", "promptable", "serving.py")
LOAD = """
import sys
from pathlib import Path

from scripts.errors import install_excepthook
from scripts.inference.promptable.models import require_promptable

install_excepthook()
name, *weights = sys.argv[1:]
model = require_promptable(name)
print("terms:", model.licence)
model.load(Path(*weights) if weights else None, "cpu")
"""


def write_prompt_model(
    model: Path, python: Path, settings: Mapping[str, Any], name: str, channel: str | None, weights: Path | None
) -> str:
    """Write the model next to the automatic one, once its weights have been loaded; returns its name.

    Args:
        model: the folder of the automatic model, a package.
        python: of the server, which has the packages of the promptable model.
        settings: of the package's inference.yaml.
        name: of `scripts.inference.promptable.models.MODELS`.
        channel: that it sees.
        weights: their file or folder; None: the model's library fetches them.

    Raises:
        InputError: there is no such channel, the package is too old, or packages or weights are missing.
    """
    if channel not in settings["channels"]:
        raise InputError(
            f"--channel is {channel}: expected the one that {name} sees, of {', '.join(settings['channels'])}."
        )
    if not (model / SERVING).is_file():
        raise InputError(f"{model.name} was exported before promptable models could be served: export it again.")
    given = [] if weights is None else [str(weights.resolve())]
    _load(model, python, name, given)
    session = {
        "_target_": "scripts.inference.promptable.serving.PromptSessions",
        "name": name,
        "channel": channel,
        "channels": "@channels",
        "channel_files": "@channel_files",
        "regions": "$list(@regions)",
        "weights": given[0] if given else None,
    }
    return write_click_model(model, session, f"_{name}{SUFFIX}")


def _load(model: Path, python: Path, name: str, weights: list[str]) -> None:
    """Load the weights in the server's Python, by the package's code, and print their terms."""
    own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(python), "-c", LOAD, name, *weights]
    done = subprocess.run(command, cwd=model, env=own, capture_output=True, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        *_, last = done.stderr.strip().splitlines() or [f"{name} cannot be loaded"]
        raise InputError(f"{last.removeprefix('error: ').removesuffix('.')} (in {python}).")
