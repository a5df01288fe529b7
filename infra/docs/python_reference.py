"""The reference of the library, made of its sources: nothing is imported.

Public is what a reader may rely on: every module of `recsys` and every class, function, constant and type in it, but for names that begin
with an underscore and for what a module imports. Of a class: its fields, properties and methods by the same rule, and `__call__`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.docs.markup import docstring

PACKAGE = "recsys"
_LONGEST_VALUE = 100
_KEPT = {"__call__"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """name: "recsys.data.split"."""

    name: str
    tree: ast.Module
    is_package: bool

    @property
    def group(self) -> str:
        """The page that it stands on: its package; modules at the top stand together."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 2 or (self.is_package and len(parts) == 2) else PACKAGE


def modules(root: Path) -> list[Module]:
    """All public modules below `root`, the folder of the package, by name."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        parts = parts[:-1] if is_package else parts
        if not any(part.startswith("_") for part in parts):
            found.append(Module(".".join(parts), ast.parse(path.read_text(encoding="utf-8")), is_package))
    return sorted(found, key=lambda module: module.name)


def public_names(module: Module) -> list[str]:
    """Of what the module itself defines, in its order."""
    return [name for name, _, _ in _definitions(module.tree.body)]


def anchor(module: str, name: str = "") -> str:
    return f"{module}.{name}" if name else module


def pages(root: Path) -> dict[str, str]:
    """File name -> Markdown: one page a package, and `index.md`."""
    groups: dict[str, list[Module]] = {}
    for module in modules(root):
        groups.setdefault(module.group, []).append(module)
    files = {f"{group}.md": _page(group, members) for group, members in groups.items()}
    return files | {"index.md": _index(groups)}


def _index(groups: dict[str, list[Module]]) -> str:
    lines = [
        "# The library",
        "",
        "Made of the docstrings by `make docs`; do not edit.",
        "",
        f"Public is every module of `{PACKAGE}` and every class, function, constant and type in it, but for names that begin with an underscore",
        "and for what a module imports from elsewhere. `pipelines`, `feature_store` and `benchmarks` are programs, not libraries: their surface is",
        "the [command line](../cli.md) and the files of configuration. The version is below 1: a name may still change, and",
        "`CHANGELOG.md` says when one does.",
        "",
    ]
    for group, members in sorted(groups.items(), key=lambda pair: (pair[0] != PACKAGE, pair[0])):
        title = PACKAGE if group == PACKAGE else f"{PACKAGE}.{group}"
        head = next((module for module in members if module.name in (title, PACKAGE) and module.is_package), None)
        told = _first_line(ast.get_docstring(head.tree)) if head else ""
        count = sum(len(public_names(module)) for module in members)
        lines.append(f"- [`{title}`]({group}.md): {docstring(told)} ({count} names in {len(members)} modules)")
    return "\n".join(lines) + "\n"


def _first_line(text: str | None) -> str:
    return (text or "").split("\n\n")[0]


def _page(group: str, members: list[Module]) -> str:
    title = PACKAGE if group == PACKAGE else f"{PACKAGE}.{group}"
    lines = [f"# {title} {{ #{anchor(title)} }}", "", "Made of the docstrings by `make docs`; do not edit.", ""]
    for module in members:
        if module.name != title:
            lines += [f"## {module.name} {{ #{anchor(module.name)} }}", ""]
        lines += [docstring(ast.get_docstring(module.tree)), ""]
        for name, node, told in _definitions(module.tree.body):
            lines += [f"### {name} {{ #{anchor(module.name, name)} }}", "", *_rendered(name, node, told)]
    return "\n".join(lines) + "\n"


def _definitions(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt, str]]:
    """(name, node, the string behind it) of each public name."""
    told_at = {number: _string(node) for number, node in enumerate(body)}
    seen: set[str] = set()
    for number, node in enumerate(body):
        for name in _names(node):
            if name not in seen and (not name.startswith("_") or name in _KEPT):
                seen.add(name)
                yield name, node, told_at.get(number + 1) or ""


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        targets = [part for target in node.targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def _string(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return None


def _rendered(name: str, node: ast.stmt, told: str) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        yield from _class(node)
    elif isinstance(node, Function):
        yield from [_code(_signature(node)), "", docstring(ast.get_docstring(node)), ""]
    else:
        yield from [_code(_assignment(name, node)), "", docstring(told), ""]


def _class(node: ast.ClassDef) -> Iterator[str]:
    bases = [ast.unparse(part) for part in (*node.bases, *node.keywords)]
    decorators = [f"@{ast.unparse(decorator)}\n" for decorator in node.decorator_list]
    yield from [_code("".join(decorators) + f"class {node.name}" + (f"({', '.join(bases)})" if bases else "")), "", docstring(ast.get_docstring(node)), ""]
    fields, methods = [], []
    for name, member, told in _definitions(node.body):
        if isinstance(member, Function):
            methods.append(member)
        elif not isinstance(member, ast.ClassDef):
            fields.append(f"- `{_assignment(name, member)}`" + (f"<br>{_inline(told)}" if told else ""))
    if fields:
        yield from [*fields, ""]
    for method in methods:
        yield from [_code(_signature(method)), "", docstring(ast.get_docstring(method)), ""]


def _inline(told: str) -> str:
    return " ".join(docstring(told).split())


def _assignment(name: str, node: ast.stmt) -> str:
    value = node.value if isinstance(node, ast.AnnAssign | ast.Assign) else None
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        names = [target.id if isinstance(target, ast.Name) else "" for target in node.targets[0].elts]
        value = node.value.elts[names.index(name)] if isinstance(node.value, ast.Tuple) and len(node.value.elts) == len(names) else None
    shown = "" if value is None else f" = {ast.unparse(value)}".replace("`", "'")
    annotation = f": {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
    return f"{name}{annotation}{shown if len(shown) <= _LONGEST_VALUE else ' = ...'}"


def _signature(node: Function) -> str:
    decorators = "".join(f"@{ast.unparse(decorator)}\n" for decorator in node.decorator_list)
    prefix = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    parts = list(_arguments(node.args))
    line = f"{prefix} {node.name}({', '.join(parts)}){returns}"
    if len(line) > 110:
        line = f"{prefix} {node.name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"
    return decorators + line


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    """Each argument as it was written."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [*([None] * (len(positional) - len(arguments.defaults))), *arguments.defaults]
    for number, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        yield ast.unparse(argument) + (f" = {ast.unparse(default)}" if default is not None else "")
        if arguments.posonlyargs and number == len(arguments.posonlyargs) - 1:
            yield "/"
    if arguments.vararg is not None:
        yield f"*{ast.unparse(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield ast.unparse(argument) + (f" = {ast.unparse(default)}" if default is not None else "")
    if arguments.kwarg is not None:
        yield f"**{ast.unparse(arguments.kwarg)}"


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
