"""Bundles small packages: what is included, in which order, and what is refused."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.script import bundle as bundling
from ralr_tune.script.bundle import bundle, import_block

Write = Callable[[Mapping[str, str]], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules of a package `ours`, on which bundled scripts must not depend."""
    monkeypatch.setattr(bundling, "PACKAGE", "ours")
    monkeypatch.syspath_prepend(str(tmp_path))
    bundling._read.cache_clear()

    def written(files: Mapping[str, str]) -> None:
        for name, text in {"__init__.py": '"""Ours."""', **files}.items():
            (tmp_path / "ours").mkdir(exist_ok=True)
            (tmp_path / "ours" / name).write_text(text)

    yield written
    for name in [name for name in sys.modules if name.partition(".")[0] == "ours"]:
        del sys.modules[name]
    bundling._read.cache_clear()


SCRIPT = '''"""A script."""

from __future__ import annotations

{imports}

VALUE = 3


def main() -> int:
    return {expression}


RESULT = main()
'''


def bundled(imports: str, expression: str, **options: Any) -> str:
    return bundle(SCRIPT.format(imports=imports, expression=expression), **options)


def result(tmp_path: Path, text: str) -> Any:
    (tmp_path / "script.py").write_text(text)
    return runpy.run_path(str(tmp_path / "script.py"))["RESULT"]


FIRST = '''"""First part.

More."""

from __future__ import annotations

import math

from ours.b import twice

UNUSED = 1
LIMIT = 10
"""Of all."""


def f(x: Number) -> float:
    return min(twice(x), LIMIT, math.inf)


Number = int


def g():
    return UNUSED
'''


def test_used_definitions_are_included_with_their_dependencies(write: Write, tmp_path: Path) -> None:
    write(
        {
            "a.py": FIRST,
            "b.py": "from functools import cache\n\n\n@cache\ndef twice(x):\n    return 2 * x\n",
        }
    )
    text = bundled("from ours.a import f, g", "f(VALUE)")
    assert result(tmp_path, text) == 6
    assert 'LIMIT = 10\n"""Of all."""' in text
    assert "Number = int" in text  # of an annotation
    assert "@cache\ndef twice" in text
    assert "UNUSED" not in text
    assert "ours." not in text.replace("# ---", "")
    assert "ours/a.py\n# First part.\n" in text
    assert text.index("def main") < text.index("ours/b.py") < text.index("ours/a.py") < text.index("RESULT = main()")


def test_local_names_are_not_module_names(write: Write) -> None:
    write(
        {
            "a.py": "def some():\n    return 1\n\n\ndef f(some):\n    [limit for limit in some]\n    return some\n\n\n"
            "limit = 3\n"
        }
    )
    text = bundled("from ours.a import f", "f(VALUE)")
    assert "def some" not in text
    assert "limit = 3" not in text


def test_a_reexported_name_is_found_at_its_definition(write: Write, tmp_path: Path) -> None:
    write({"__init__.py": "from ours.a import f", "a.py": "def f(x):\n    return x + 1\n"})
    assert result(tmp_path, bundled("from ours import f", "f(VALUE)")) == 4


def test_imports_for_types_are_included(write: Write) -> None:
    write(
        {
            "a.py": "from __future__ import annotations\n\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n"
            "    from decimal import Decimal\n\n\ndef f(x: Decimal):\n    return x\n"
        }
    )
    text = bundled("from ours.a import f", "f(VALUE)")
    assert "from decimal import Decimal" in text
    assert "TYPE_CHECKING" not in text


def test_a_definition_that_cannot_run_is_replaced(write: Write, tmp_path: Path) -> None:
    write(
        {
            "a.py": "from ours.b import check\n\n\ndef f(x):\n    return check(x)\n",
            "b.py": "def check(x):\n    return 'checked'\n",
            "c.py": "def check(x):\n    return x\n",
        }
    )
    text = bundled("from ours.a import f", "f(VALUE)", replacements={"ours.b.check": "ours.c.check"})
    assert result(tmp_path, text) == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.py": "def f(x):\n    return nowhere\n"}, "nowhere in ours.a: not found"),
        ({"a.py": ""}, "ours.a: its source cannot be read"),
        ({"a.py": "def f(x):\n    from ours import b\n    return b\n", "b.py": ""}, "imports ours when it is called"),
        ({"a.py": "from ours import b\n\n\ndef f(x):\n    return b.x\n", "b.py": ""}, "b in ours: not found"),
        ({"a.py": "import ours.b\n\n\ndef f(x):\n    return ours.b\n", "b.py": ""}, "ours.a: imports a module of ours"),
        (
            {"a.py": "from ours.b import g as h\n\n\ndef f(x):\n    return h\n", "b.py": "g = 1"},
            "a definition under another name",
        ),
        (
            {"a.py": "from ours.b import g\n\n\ndef f(x):\n    return h(), g()\n\n\ndef h(): ...\n",
             "b.py": "def g():\n    return h\n\n\nh = 1\n"},
            "h: both ours.a.h and ours.b.h",
        ),
        ({"a.py": "VALUE = 4\n\n\ndef f(x):\n    return VALUE\n"}, "VALUE: both the script and ours.a.VALUE"),
        (
            {"a.py": "from ours.b import g\nfrom os import path\n\n\ndef f(x):\n    return g, path\n",
             "b.py": "from sys import path\n\n\ndef g():\n    return path\n"},
            "path: both sys.path and os.path",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_included_is_refused(write: Write, files: dict[str, str], message: str) -> None:
    write(files)
    with pytest.raises(UsageError) as caught:
        bundled("from ours.a import f", "f(VALUE)")
    assert message in str(caught.value)
    assert "toml, json or yaml" in str(caught.value)


def test_imports_are_sorted() -> None:
    given = {
        ("torch", "nn", "nn"),
        ("math", "", "math"),
        ("torch", "", "torch"),
        ("torch", "Tensor", "Tensor"),
        ("numpy", "", "np"),
        ("torchvision.models", "", "torchvision"),
        ("PIL", "", "PIL"),
        ("torch.nn", "functional", "F"),
        ("__future__", "annotations", "annotations"),
    }
    assert import_block(given) == (
        "import math\n\nimport numpy as np\nimport PIL\nimport torch\nimport torchvision.models\n"
        "from torch import Tensor, nn\nfrom torch.nn import functional as F\n"
    )
