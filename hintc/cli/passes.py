"""``hintc passes``: what can stand in a pipeline."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

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
    options = [
        {
            "name": field.name,
            "type": str(field.type),
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


def _shown(value: object) -> str:
    """A default as pipelines write it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(_shown(v) for v in value)}]"
    return str(value)
