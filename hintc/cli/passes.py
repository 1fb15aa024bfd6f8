"""``hintc passes``: what can stand in a pipeline."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import textwrap
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from hintc.ops import TARGETS, FusedOp


@click.command("passes")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--verbose", is_flag=True,
              help="All that passes say of themselves, and the declared ops.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def passes_command(names: tuple[str, ...], verbose: bool, as_json: bool) -> None:
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
        ops = [described_op(op) for op in _ops()]
        everything = {"passes": described, "ops": ops, "default_pipeline": default}
        click.echo(json.dumps(everything, indent=2))
        return
    for entry in described:
        click.echo(f"{click.style(entry['name'], bold=True)}\n    {entry['doc']}")
        if verbose:
            click.echo(_indented(entry["about"]))
        for option in entry["options"]:
            click.echo(f"      {option['name']}={option['default']}  ({option['type']})")
    if verbose and not names:
        click.echo("\n" + "\n".join(line for op in _ops() for line in _op_lines(op)))
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
    return {"name": name, "doc": doc, "about": _about(cls), "options": options}


def _about(cls: type[Any]) -> str:
    """What the module of a pass says of it, if the pass has one to itself; else its class."""
    module = sys.modules.get(cls.__module__)
    is_alone = cls.__module__.rpartition(".")[2] == cls.name.replace("-", "_")
    return inspect.getdoc(module if is_alone and module is not None else cls) or ""


def _indented(text: str) -> str:
    return textwrap.indent(text, "    ") if text else ""


def _ops() -> list[FusedOp]:
    from hintc.ops import declared, declared_names

    return [op for name in declared_names() if (op := declared(name)) is not None]


def described_op(op: FusedOp) -> dict[str, Any]:
    """A declared op as plain data."""
    return {
        "name": op.name,
        "doc": op.doc,
        "operands": [
            {
                "name": slot.name,
                "kind": slot.kind,
                "optional": slot.optional or slot.kind == "state",
                "shape": list(slot.shape),
            }
            for slot in op.operands
        ],
        "results": list(op.results),
        "attributes": [
            {
                "name": name,
                "type": spec.type.__name__,
                "default": spec.default,
                "choices": list(spec.choices),
            }
            for name, spec in op.attributes.items()
        ],
        "lowering": op.lowering_text,
        "constraints": [
            {"reason": rule.reason, "targets": list(rule.targets)} for rule in op.constraints
        ],
    }


def _op_lines(op: FusedOp) -> list[str]:
    """A declared op as people read it."""
    about = described_op(op)
    lines = [f"op {click.style(op.name, bold=True)}: {op.lowering_text}"]
    if op.doc:
        lines.append(f"    {op.doc}")
    for slot in about["operands"]:
        shape = f" [{', '.join(slot['shape'])}]" if slot["shape"] else ""
        absent = ", may be absent" if slot["optional"] else ""
        lines.append(f"      {slot['name']}{shape}  ({slot['kind']}{absent})")
    if op.variadic:
        lines.append("      any operands and results")
    lines += [f"      -> {name}" for name in op.results]
    for attribute in about["attributes"]:
        kind = " | ".join(map(_shown, attribute["choices"])) or attribute["type"]
        default = "" if attribute["default"] is None else f"={_shown(attribute['default'])}"
        lines.append(f"      {attribute['name']}{default}  ({kind})")
    for rule in op.constraints:
        where = "" if rule.targets == TARGETS else f" on {', '.join(rule.targets)}"
        lines.append(f"      not{where}, if {rule.reason}")
    return lines


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
