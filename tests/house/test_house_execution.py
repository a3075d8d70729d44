"""Data stay data: the package never unpickles, evaluates or executes what it reads, except for one import path.

Study files, exported configurations, .npz files, images, checkpoints, weights and the contents of the database may come
from an untrusted author.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "ralr_tune"

MODULES = frozenset(
    {
        "pickle",
        "_pickle",
        "cPickle",
        "cloudpickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
        "jsonpickle",
        "runpy",
        "code",
    }
)
"""They execute what they read, or serve nothing else."""

NAMES = frozenset(
    {"eval", "exec", "compile", "__import__", "CmaEsSampler", "read_pickle", "unsafe_load", "unsafe_load_all",
     "full_load", "full_load_all", "UnsafeLoader", "FullLoader", "load_state_dict_from_url"}
)  # fmt: skip
"""Functions that do (`model.eval()` is a method and passes), and the sampler that unpickles what its study holds."""

METHODS = (*(f".{name}" for name in NAMES - {"eval", "compile"}), "os.system", "os.popen", "jit.load", "hub.load")

LOADS = {"torch": ("weights_only", True), "np": ("allow_pickle", False), "numpy": ("allow_pickle", False),
         "format": ("allow_pickle", False), "yaml": ("Loader", "SafeLoader")}  # fmt: skip
"""Calls of `X.load` (and `X.read_array`) that need a safe argument."""

IMPORTS_CODE = {
    "commands/preloading.py": ["import_module"],
    "models/registry.py": ["importlib.import_module"],
    "objects/opening.py": ["import_module", "import_module"],
    "own/serve.py": ["importlib.import_module"],
    "studyfile/registry.py": ["importlib.import_module"],
    "script/bundle.py": ["import_module"],
    "training/imported_optimizer.py": ["importlib.import_module"],
}
"""Where that may stand: `model = "package.module:callable"`, `kind = "package.module:NAME"`,
`target = "package.module:name"`, `optimizer = "package.module:Class"`, modules of this package whose source an exported
script carries, a list of libraries that the report needs, and the libraries of stores of objects."""

OWN_PARTS = "import_module(_HOMES[name])"
"""It may also import the package's own modules on first use: only names from a table."""


def findings(source: str) -> Iterator[str]:
    """What in `source` might execute data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            named = [node.module or "", *(alias.name for alias in node.names)]
            yield from (name for name in named if name.split(".")[0] in MODULES | NAMES)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.Attribute) and node.attr in {"CmaEsSampler", "UnsafeLoader", "FullLoader"}:
            yield node.attr


def _of_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    owner, _, name = called.rpartition(".")
    if isinstance(node.func, ast.Name) and called in NAMES:
        yield called
    if isinstance(node.func, ast.Attribute) and called.endswith(METHODS):
        yield called
    if called.endswith("import_module") and ast.unparse(node) != OWN_PARTS:
        yield called
    if any(keyword.arg == "shell" for keyword in node.keywords):
        yield f"{called} with shell"
    if name in {"load", "load_all", "read_array"} and not _is_safe(owner.rpartition(".")[2], node):
        yield called
    if called.endswith("partial") and any(
        ast.unparse(each).endswith((".load", ".read_array")) for each in node.args[:1]
    ):
        target = ast.unparse(node.args[0]).rpartition(".")[0].rpartition(".")[2]
        if not _is_safe(target, node):
            yield f"partial of {ast.unparse(node.args[0])}"


def _is_safe(owner: str, node: ast.Call) -> bool:
    """Whether a call of OWNER.load has the argument that makes it safe; owners that are not in LOADS need none."""
    if owner not in LOADS:
        return True
    key, value = LOADS[owner]
    given = {keyword.arg: ast.unparse(keyword.value).rpartition(".")[2] for keyword in node.keywords}
    return given.get(key) == str(value)


def found_in(root: Path) -> dict[str, list[str]]:
    found = {path.relative_to(root).as_posix(): list(findings(path.read_text("utf-8"))) for path in root.rglob("*.py")}
    return {name: calls for name, calls in found.items() if calls}


def test_data_are_never_executed() -> None:
    assert found_in(ROOT) == IMPORTS_CODE


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import cloudpickle as harmless",
        "import joblib.numpy_pickle",
        "from pickle import loads",
        "from optuna.samplers import CmaEsSampler",
        "sampler = optuna.samplers.CmaEsSampler()",
        "kinds = {'cmaes': samplers.CmaEsSampler}",
        "def f():\n    import marshal",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "np.lib.format.read_array(stream)",
        "partial(np.lib.format.read_array)",
        "functools.partial(np.load, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "compile(text, 'x', 'exec')",
        "builtins.exec(text)",
        "__import__(name)",
        "importlib.import_module(name)",
        "import_module(_HOMES.get(name, name))",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
        "torch.jit.load(path)",
        "torch.hub.load(repo, name)",
        "pandas.read_pickle(path)",
    ],
)
def test_code_that_executes_data_is_found(line: str) -> None:
    assert list(findings(line))


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "re.compile(text)",
        "torch.compile(model)",
        "np.load(path, allow_pickle=False)",
        "torch.load(path, map_location='cpu', weights_only=True)",
        "partial(np.lib.format.read_array, allow_pickle=False)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "json.load(file)",
        "tomllib.load(file)",
        "source.train.load()",
        "safetensors.torch.load_file(path)",
        "ast.literal_eval(text)",
        "subprocess.Popen(command)",
        "import_module(_HOMES[name])",
    ],
)
def test_safe_code_passes(line: str) -> None:
    assert list(findings(line)) == []
