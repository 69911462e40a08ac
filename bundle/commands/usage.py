"""The `--help` of a command, made from its signature and docstring."""

import inspect
import re
from collections.abc import Callable
from types import ModuleType

KEYWORD = inspect.Parameter.KEYWORD_ONLY
REQUIRED = " (required)"


def show_help(command: Callable, module: ModuleType) -> str:
    """Usage, purpose, examples, and one entry per argument with its default.

    A module with a function `list_choices` has its text at the end: what an argument can be, found at that moment.
    """
    parameters = inspect.signature(command).parameters
    text = (inspect.getdoc(command) or "").partition("\nRaises:")[0].rstrip()
    about, _, described = text.partition("\nArgs:\n")
    entries = {}
    for entry in re.split(r"\n(?=    \w)", described):
        name, _, rest = entry.strip().partition(": ")
        entries[name.lstrip("*")] = re.sub(r"\n\s+", "\n        ", rest)
    words, options = [], []
    for name, parameter in parameters.items():
        entry = entries.get(name, "")
        if parameter.kind is parameter.VAR_POSITIONAL:
            words.append((f"[{name.upper().removesuffix('S')} ...]", entry))
        elif parameter.kind is parameter.VAR_KEYWORD:
            options.append(("--SETTING VALUE", entry))
        elif parameter.default is parameter.empty and parameter.kind is not KEYWORD:
            words.append((name.upper(), entry))
        else:
            options.append(describe_option(name, parameter, entry))
    if command.__annotations__.get("return") not in (None, "None"):
        options.append(("--json", "print the numbers as JSON on stdout, and all else on stderr"))
    needed = [option for option, entry in options if entry.endswith(REQUIRED)]
    shown = " ".join([command.__name__, *(word for word, _ in words), *needed, "[OPTIONS]"])
    lines = [f"usage: python -m bundle {shown}", "", about.rstrip()]
    for title, part in (("Arguments:", words), ("Options:", options)):
        lines += ["", title, *(f"    {name}\n        {entry}" for name, entry in part)] if part else []
    if choices := getattr(module, "list_choices", None):
        lines += ["", choices()]
    return "\n".join(lines)


def describe_option(name: str, parameter: inspect.Parameter, entry: str) -> tuple[str, str]:
    """An option as it is written, and its text with the default, where that is a value of its own."""
    name = name.rstrip("_")  # a word of Python, such as `with`
    if isinstance(parameter.default, bool):
        return f"--{name}", entry if not parameter.default else f"{entry} (default: True; --no{name} turns it off)"
    if parameter.default is parameter.empty:
        return f"--{name} {name.upper()}", entry + REQUIRED
    default = ",".join(map(str, d)) if isinstance(d := parameter.default, tuple) else d
    return f"--{name} {name.upper()}", entry if default in (None, "") else f"{entry} (default: {default})"
