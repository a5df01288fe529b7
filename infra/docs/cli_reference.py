"""The reference of the command line, made of the commands themselves."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

from infra.docs.markup import escaped

_STYLE = re.compile(r"\[/?(?:bold|dim|italic|green|red|yellow)?\]")


@cache
def group() -> Any:
    """The whole program, as typer's click knows it."""
    import typer

    from pipelines.cli import app

    return typer.main.get_command(app)


def commands(parent: Any, prefix: str = "") -> dict[str, Any]:
    """Name -> command, those of groups with the group's name before theirs."""
    found = {}
    for name, command in parent.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


def page() -> str:
    program = group()
    found = commands(program)
    lines = ["# The command line", "", "Made of the commands by `make docs`; do not edit.", "", *_help(program.help), ""]
    lines += [f"- [`recsys {name}`](#{_anchor(name)}): {_summary(command)}" for name, command in found.items()]
    for name, command in found.items():
        lines += ["", f"## recsys {name} {{ #{_anchor(name)} }}", "", *_help(command.help), "", "```text", _usage(name, command), "```", ""]
        lines += [f"- {_parameter(parameter)}" for parameter in command.params if not getattr(parameter, "hidden", False) and parameter.name != "help"]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _help(text: str | None) -> list[str]:
    plain = _STYLE.sub("", inspect.cleandoc(text or ""))
    return [escaped(line) for line in plain.splitlines()]


def _summary(command: Any) -> str:
    return _help((command.help or "").split("\n\n")[0])[0]


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _usage(name: str, command: Any) -> str:
    parts = [_metavar(parameter) for parameter in command.params if _is_argument(parameter)]
    return " ".join(["recsys", name, *(["[OPTIONS]"] if any(not _is_argument(p) for p in command.params) else []), *parts])


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _parameter(parameter: Any) -> str:
    told = escaped(_STYLE.sub("", getattr(parameter, "help", None) or ""))
    if _is_argument(parameter):
        return f"`{_metavar(parameter)}`: {told}"
    names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    value = "" if parameter.is_flag else f" `{_metavar(parameter)}`"
    default = parameter.default
    if callable(default) or default in (None, False, (), []) or parameter.is_flag:
        shown = ""
    else:
        shown = f" Default: `{default}`."
    return f"{names}{value}: {told}{' Needed.' if parameter.required else ''}{shown}"
