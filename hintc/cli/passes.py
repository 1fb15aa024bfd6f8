"""``hintc passes``: what can stand in a pipeline."""

from __future__ import annotations

import dataclasses
import inspect
import json
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click


@click.command("passes")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def passes_command(names: tuple[str, ...], as_json: bool) -> None:
    """List the passes with their options and defaults.

    With NAMEs, only those.
    """
    from hintc import registry

    known = registry.passes()
    chosen = {name: registry.find(name) for name in names} if names else known
    for problem in registry.problems():
        click.echo(f"warning: {problem}", err=True)
    described = [describe(name, cls) for name, cls in chosen.items()]
    default = registry.default_pipeline()
    if as_json:
        click.echo(json.dumps({"passes": described, "default_pipeline": default}, indent=2))
        return
    for entry in described:
        click.echo(f"{click.style(entry['name'], bold=True)}\n    {entry['doc']}")
        for option in entry["options"]:
            click.echo(f"      {option['name']}={option['default']}  ({option['type']})")
    if not names and default:
        click.echo(f"\ndefault pipeline:\n    {default}")


def describe(name: str, cls: type[Any]) -> dict[str, Any]:
    """A pass as plain data: name, first line of its docstring, options."""
    doc = (inspect.getdoc(cls) or "").partition("\n")[0]
    hints = get_type_hints(cls)
    options = [
        {
            "name": field.name,
            "type": _type(hints[field.name]),
            "default": _shown(
                field.default_factory()
                if field.default_factory is not dataclasses.MISSING
                else field.default
            ),
        }
        for field in dataclasses.fields(cls)
        if field.init
    ]
    return {"name": name, "doc": doc, "options": options}


def _type(hint: Any) -> str:
    """A type as people read it: the choices of a Literal, else its name."""
    origin, members = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(_shown(member) for member in members)
    if origin in (Union, UnionType):
        return " | ".join(_type(member) for member in members)
    if origin is tuple:
        return f"list of {_type(members[0])}"
    if hint is type(None):
        return "none"
    return str(getattr(hint, "__name__", hint))


def _shown(value: object) -> str:
    """A default as pipelines write it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()  # true, false, none
    if isinstance(value, tuple):
        return f"[{','.join(_shown(v) for v in value)}]"
    return str(value)
