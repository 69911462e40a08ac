"""Trust in packages: a package is a program, and nothing in it runs before its user has agreed.

Agreement is remembered for the sha256 of a package's files, so any change asks again: one file per package in
`$XDG_STATE_HOME/brain-tumour-bundle/trusted` (by default ~/.local/state/...), which is removed to withdraw it.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.files import write_json
from scripts.inference.package_manifest import MANIFEST, printable

Ask = Callable[[str], bool | None]  # puts a question to the user; None where nobody can answer
QUESTION = """\
A package is a program: to use it is to run the Python code and the configs in it, with all that you may do.
  package: {package}
  name:    {name}, version {version}
  authors: {authors} (by its own account)
  sha256:  {sha256}
{note}Run it only if you trust those who gave it to you. Type yes to trust it: """
NO_MANIFEST = f"  note:    without {MANIFEST} its files cannot be compared with those that were exported\n"


def require_trust(package: Path, sha256: str, metadata: Mapping[str, Any], trust: bool, ask: Ask) -> None:
    """Return if the user trusts a package with this `sha256`, or agrees now, by `trust` or when asked.

    Raises:
        InputError: the user does not agree, or cannot be asked.
    """
    if is_trusted(sha256):
        return
    if not trust:
        about = {key: printable(metadata.get(key, "not stated"))[:200] for key in ("name", "version", "authors")}
        note = "" if (package / MANIFEST).is_file() else NO_MANIFEST
        agreed = ask(QUESTION.format(package=printable(package.resolve()), sha256=sha256, note=note, **about))
        if agreed is None:
            raise InputError(
                f"package {package} (sha256 {sha256}) is a program that is not trusted on this machine yet: if you"
                " trust those who gave it to you, add --trust."
            )
        if not agreed:
            raise InputError(f"package {package} is not trusted: nothing in it was run.")
    remember(sha256, metadata)


def is_trusted(sha256: str) -> bool:
    """Whether this user trusts the package with this sha256."""
    return _record(sha256).is_file()


def remember(sha256: str, metadata: Mapping[str, Any]) -> None:
    """Remember that this user trusts a package; where that cannot be written, the user is asked again."""
    content = {"name": metadata.get("name"), "version": metadata.get("version")}
    with suppress(InputError):
        write_json(_record(sha256), {**content, "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def _record(sha256: str) -> Path:
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    state = given if given.is_absolute() else Path("~/.local/state").expanduser()  # XDG ignores relative paths
    return state / "brain-tumour-bundle" / "trusted" / f"{sha256}.json"
