"""Makes a module independent of this package: replaces each import from it by the imported source.

A bundle includes the package's own source, definition by definition, and only what the module uses directly or
indirectly. So a script cannot diverge from the package. The result is one module: names must not collide, and a
function must not import from this package inside its body.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import symtable
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from ralr_tune.errors import UsageError
from ralr_tune.script.text import OTHER_FORMATS, WIDTH

PACKAGE = __name__.partition(".")[0]

_RULE = "# " + "-" * 64

_KNOWN = frozenset({*vars(builtins), "__name__", "__file__"})

Import = tuple[str, str, str]
"""(module, name, bound name): `from module import name as bound`; name is "" for `import module as bound`."""


@dataclass(frozen=True)
class _Module:
    name: str
    """Dotted; "" is the script itself."""
    summary: str
    """First paragraph of its docstring."""
    definitions: Mapping[str, str]
    """Source by name, in the module's order, including the docstring below a constant."""
    imports: Mapping[str, list[Import]]
    """By bound name; several submodules of one package bind the same name."""


def bundle(script: str, *, replacements: Mapping[str, str] | None = None) -> str:
    """The script with the source of everything that it imports from this package.

    `script` is a whole module: docstring, imports, definitions, and a last statement that runs them. The included
    source goes between the last two, so that readers see the script's own part first; the definitions must therefore
    not use this package at import time. `replacements` maps the dotted name of a definition that cannot run in a script
    to the dotted name of its replacement, which has the same name. Raises UsageError, naming what cannot be included.
    """
    nodes, lines = ast.parse(script).body, script.split("\n")
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    begin, end = imports[-1].end_lineno, nodes[-1].lineno - 1
    body = "\n".join(lines[begin:end]).strip("\n")
    included = _Bundle(replacements or {})
    included.add_script(_module("", script))
    head = ["\n".join(lines[: nodes[0].end_lineno]), "from __future__ import annotations"]
    sections = "\n\n\n".join([body, *included.sections(), "\n".join(lines[end:]).strip("\n")])
    return "\n\n".join([*head, import_block(included.imports) + "\n" + sections]) + "\n"


class _Bundle:
    """The definitions included so far."""

    def __init__(self, replacements: Mapping[str, str]) -> None:
        self._replacements = replacements
        self._included: dict[str, set[str]] = {}
        self._needs: dict[str, list[str]] = {}
        """For each module, the modules from which it uses definitions."""
        self._owners: dict[str, str] = {}
        self.imports: set[Import] = set()

    def add_script(self, script: _Module) -> None:
        for name in script.definitions:
            self._claim_name(name, "the script")
        for source in script.definitions.values():
            for name in _global_names(source):
                if name not in script.definitions:
                    self._follow(script, name)

    def sections(self) -> Iterator[str]:
        """One for each module, after all modules from which it uses definitions."""
        seen, order = set[str](), list[str]()

        def visit(module: str) -> None:
            if module not in seen:  # import cycles exist only for types: any order works
                seen.add(module)
                for needed in self._needs.get(module, ()):
                    visit(needed)
                order.append(module)

        visit("")
        return (_section(_read(module), self._included[module]) for module in order if module in self._included)

    def _follow(self, module: _Module, name: str) -> None:
        """Includes the definition of `name` at the top level of `module`."""
        if name in module.definitions:
            self._add(module, name)
        elif name in module.imports:
            for each in module.imports[name]:
                self._import(module, each)
        elif name not in _KNOWN:
            raise _export_error(f"{name} in {module.name or 'the script'}: not found at the top level of this module")

    def _import(self, module: _Module, found: Import) -> None:
        source, name, bound = found
        if not _in_package(source):
            self._claim_name(bound, source if not name else f"{source}.{name}")
            self.imports.add(found)
            return
        if not name or name != bound:
            raise _export_error(
                f"{bound} in {module.name}: imports a module of {PACKAGE}, or a definition under another name"
            )
        source, _, name = self._replacements.get(f"{source}.{name}", f"{source}.{name}").rpartition(".")
        needs = self._needs.setdefault(module.name, [])
        if source not in needs:
            needs.append(source)
        self._follow(_read(source), name)

    def _add(self, module: _Module, name: str) -> None:
        included = self._included.setdefault(module.name, set())
        if name in included:
            return
        self._claim_name(name, f"{module.name}.{name}")
        included.add(name)
        source = module.definitions[name]
        if inner := [
            each for node in ast.walk(ast.parse(source)) for each in _imports_of(node) if _in_package(each[0])
        ]:
            raise _export_error(f"{module.name}.{name}: it imports {inner[0][0]} when it is called")
        for used in _global_names(source):
            self._follow(module, used)

    def _claim_name(self, name: str, owner: str) -> None:
        root = owner.partition(".")[0]
        other = self._owners.setdefault(name, owner)
        if other != owner and not (name == root == other.partition(".")[0]):  # `import a.b` and `import a.c` bind `a`
            raise _export_error(f"{name}: both {other} and {owner} have this name")


def _export_error(what: str) -> UsageError:
    return UsageError(f"{what}; no script can be written: {OTHER_FORMATS}")


def _in_package(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


@cache
def _read(module: str) -> _Module:
    try:
        return _module(module, inspect.getsource(import_module(module)))
    except OSError as error:
        raise _export_error(f"{module}: its source cannot be read ({error})") from error


def _module(name: str, source: str) -> _Module:
    tree, lines = ast.parse(source), source.split("\n")
    definitions, imports = {}, dict[str, list[Import]]()
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        last = following if following is not None and _is_string(following) else node
        for bound in _bound_names(node):
            definitions[bound] = "\n".join(lines[_first_line(node) - 1 : last.end_lineno])
        for each in (node, *(node.body if isinstance(node, ast.If) else ())):  # if TYPE_CHECKING
            for found in _imports_of(each):
                imports.setdefault(found[2], []).append(found)
    return _Module(name, (ast.get_docstring(tree) or "").partition("\n\n")[0], definitions, imports)


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _bound_names(node: ast.stmt) -> list[str]:
    """Names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _imports_of(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from ((each.name, "", each.asname or each.name.partition(".")[0]) for each in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from ((node.module or "", each.name, each.asname or each.name) for each in node.names)


def _global_names(source: str) -> list[str]:
    """Names of the module's top level that the source uses, including annotations, roughly in order of use."""

    def names(table: symtable.SymbolTable) -> Iterator[str]:
        yield from (each.get_name() for each in table.get_symbols() if each.is_global() and each.is_referenced())
        for inner in table.get_children():
            yield from names(inner)

    return sorted(set(names(symtable.symtable(source, "<script>", "exec"))), key=lambda name: (source.find(name), name))


def _section(module: _Module, included: set[str]) -> str:
    """Definitions under a heading that names their file."""
    heading = [f"{_RULE} {module.name.replace('.', '/')}.py"]
    heading += textwrap.wrap(module.summary, WIDTH, initial_indent="# ", subsequent_indent="# ")
    text, before = "\n".join(heading), "constant"
    for source in dict.fromkeys(source for name, source in module.definitions.items() if name in included):
        kind = "block" if source.startswith(("def ", "class ", "async ", "@")) else "constant"
        text += ("\n\n" if before == kind == "constant" else "\n\n\n") + source
        before = kind
    return text


def import_block(imports: Iterable[Import]) -> str:
    """The import statements in isort's order: the standard library first."""
    modules: dict[str, set[str]] = {}
    for module, name, bound in imports:
        if name:
            modules.setdefault(module, set()).add(name if name == bound else f"{name} as {bound}")
    whole = {
        f"import {module}" if bound == module.partition(".")[0] else f"import {module} as {bound}"
        for module, name, bound in imports
        if not name
    }
    named = [f"from {module} import {_names(modules[module])}" for module in sorted(modules, key=str.lower)]
    lines = [line for line in (*sorted(whole, key=str.lower), *named) if not line.startswith("from __future__")]
    standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    others = [line for line in lines if line not in standard]
    return "\n\n".join("\n".join(block) for block in (standard, others) if block) + "\n"


def _names(names: set[str]) -> str:
    """CONSTANTS, Classes, functions."""
    return ", ".join(sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)))
