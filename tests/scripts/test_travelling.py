"""Conditions on scripts/ in a package: MONAI Label imports it, keeps it loaded, and installs what it needs.

MONAI Label takes a package off sys.path after reading its config, and one process answers many requests.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys

import pytest

from tests.made import ROOT

MODULES = sorted((ROOT / "scripts").rglob("*.py"))
# what may be called for a value of the module level: its result never changes, or is made anew (a dataclass's field)
# signals belong to the process, and a note on a header is printed once in it; no result depends on either
STATE_OF_THE_PROCESS = {"stopping.py", "nifti.py"}
CONSTANT_CALLS = {
    "arange",
    "compile",
    "diag",
    "field",
    "frozenset",
    "getLogger",
    "partial",
    "reshape",
    "timedelta",
    "tuple",
}
CONSTANT_CALLS |= {
    "partial",
    "TypeVar",
    "BratsRule",
    "Compared",
    "Kind",
    "Metric",
    "PromptableModel",
    "ScanCheck",
    "NormalizeIntensity",
    "ScaleIntensity",
    "HistogramNormalize",
}
CHANGES = {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove"}
CHANGES |= {"reverse", "setdefault", "sort", "update"}
CACHES = ("cache", "lru_cache")
# pure functions of sizes, a few small entries; what this machine can do; the hash of an unchanged file
SMALL_TABLES = {"areas_by_code", "_legendre", "_spline", "tiling", "_few", "kernels_available", "_sha256"}
SMALL_TABLES |= {"ball_profile"}
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "PyYAML", "ignite": "pytorch-ignite"}
# faster gzip and norms, the standard ones where they are not installed; slides, of which no package is made; promptable
# models, which are asked for by name
OPTIONAL = {"isal", "triton", "tifffile", "transformers", "nnInteractive"}
# what is imported by others on our behalf: `python -m monai.bundle`, torch's SummaryWriter
INDIRECT = {"fire", "tensorboard"}


def late_imports(tree: ast.Module) -> list[str]:
    """Imports of scripts inside functions."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [
        f"line {node.lineno}: {name} is imported inside {function.name}"
        for function in functions
        for node in ast.walk(function)
        for name in imported(node)
        if name.split(".")[0] == "scripts"
    ]


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports; of a call by name, too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "scripts"] if node.level == 0 else ["scripts"]
    if isinstance(node, ast.Call) and name_of(node.func) in ("__import__", "import_module"):
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return []


def kept_between_requests(tree: ast.Module) -> list[str]:
    """What a module may remember: names of its top level (and of its classes) whose values can change.

    There a value may be made by calls of `CONSTANT_CALLS` alone, a list, dictionary or set is never changed anywhere in
    the module, functions set no global and no attribute of a class, function or module of ours, and cache nothing.
    """
    found, own = [], set()
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for statement in (statement for scope in scopes for statement in scope.body):
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            own |= {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            for node in ast.walk(statement.value) if statement.value else ():
                if isinstance(node, ast.Call) and name_of(node.func) not in CONSTANT_CALLS:
                    found.append(f"line {node.lineno}: {ast.unparse(node)} is kept")
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(statement.name)
        elif isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("scripts"):
            own |= {alias.asname or alias.name for alias in statement.names}
    for node in ast.walk(tree):
        where = f"line {getattr(node, 'lineno', 0)}:"
        if isinstance(node, ast.Global):
            found.append(f"{where} global {', '.join(node.names)}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
            if any(name_of(d) in CACHES for d in decorators) and node.name not in SMALL_TABLES:
                found.append(f"{where} {node.name} is cached")
            arguments = {a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]}
            local = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            shared = own - arguments - local
            found += [f"line {n.lineno}: {ast.unparse(n)} changes" for n in ast.walk(node) if changed(n) in shared]
    return found


def changed(node: ast.AST) -> str | None:
    """The name whose value a node changes: `NAME[x] = ...`, `NAME.x = ...`, `del NAME[x]`, `NAME.append(...)`."""
    if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        base = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
        base = node.func.value
    elif isinstance(node, ast.Call) and name_of(node.func) in ("next", "setattr") and node.args:
        base = node.args[0]
    else:
        return None
    while isinstance(base, ast.Subscript | ast.Attribute):
        base = base.value
    return base.id if isinstance(base, ast.Name) else None


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT / "scripts").as_posix())
def test_module_imports_scripts_at_its_top_and_keeps_no_state(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = [] if path.name in STATE_OF_THE_PROCESS else kept_between_requests(tree)
    assert late_imports(tree) + kept == []


@pytest.mark.parametrize(
    "slip",
    [
        "def f():\n    from scripts.files import write_text",
        "class A:\n    def f(self):\n        import scripts.files as files",
        "def f():\n    from importlib import import_module\n    import_module('scripts.files')",
        "from importlib import import_module\ndef f():\n    import_module('scripts.files')",
        "SEEN = {}\ndef f(x):\n    SEEN[x] = 1",
        "SEEN = []\ndef f(x):\n    SEEN.append(x)",
        "SEEN = {'a': []}\ndef f(x):\n    SEEN['a'].append(x)",
        "COUNT = 0\ndef f():\n    global COUNT\n    COUNT += 1",
        "SEEN = set()",
        "from collections import defaultdict\nSEEN = defaultdict(list)",
        "import numpy as np\nRNG = np.random.default_rng(0)",
        "import itertools\nIDS = itertools.count()\ndef f():\n    return next(IDS)",
        "class A:\n    seen = {}\n    def f(self, x):\n        A.seen[x] = 1",
        "class A:\n    seen = dict()",
        "def f(x):\n    f.last = x",
        "from scripts.scoring.metrics import METRICS\ndef f(x):\n    METRICS[x] = x",
        "from functools import lru_cache\n@lru_cache(maxsize=None)\ndef f(x):\n    return x",
        "from functools import cache\n@cache\ndef f(x):\n    return x",
    ],
)
def test_each_kind_of_slip_is_found(slip):
    tree = ast.parse(slip)
    assert late_imports(tree) + kept_between_requests(tree)


@pytest.mark.parametrize(
    "sound",
    [
        "from scripts.files import write_text\nNAMES = {'a': 1}\ndef f(x):\n    return NAMES[x]",
        "def f(seen, x):\n    seen[x] = 1\n    found = []\n    found.append(x)\n    return found",
        "class A:\n    def f(self, x):\n        self.seen = {}\n        self.seen[x] = 1",
        "import re\nNAME = re.compile('a')\ndef f():\n    import resource",
    ],
)
def test_valid_arguments_are_not_refused(sound):
    tree = ast.parse(sound)
    assert late_imports(tree) + kept_between_requests(tree) == []


def test_imports_of_scripts_match_metadata_and_monai_label_requirements():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES]
    names = {name.split(".")[0] for tree in trees for node in ast.walk(tree) for name in imported(node)}
    ours = names - {*sys.stdlib_module_names} - OPTIONAL - {"scripts"}
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    required = {*metadata["required_packages_version"], "monai", "torch", "numpy"}
    assert {DISTRIBUTIONS.get(name, name) for name in ours} | INDIRECT == required
    script = (ROOT / "tests" / "monailabel" / "environment.sh").read_text(encoding="utf-8")
    lines = script.replace("\\\n", " ").splitlines()
    words = [word for line in lines if line.startswith("install ") for word in shlex.split(line)]
    installed = {re.split(r"[=<>\[]", word)[0].lower() for word in words}
    assert {name.lower() for name in required} <= installed
    for name, key in (("torch", "pytorch_version"), ("monai", "monai_version")):
        assert f"{name}=={metadata[key]} " in script
