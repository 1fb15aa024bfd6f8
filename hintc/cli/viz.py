"""``hintc viz``: a picture of a graph, as it came or after a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from hintc.cli.commands import STDOUT, check_kept, check_output, check_source, write_output
from hintc.cli.options import debug_options, source_options
from hintc.cli.session import (
    DebugSwitches,
    compiler_session,
    instruments,
    progress,
    resolve_pipeline,
)
from hintc.errors import HintcError

if TYPE_CHECKING:
    from hintc.ir import Module

_ENDINGS = (".dot", ".svg", ".png")
_FEW = 4


@click.command("viz")
@source_options
@click.option("-o", "output", required=True, metavar="FILE",
              help="Picture to write: .svg, .png or .dot; '-' for DOT on standard "
              "output.")  # fmt: skip
@click.option("--pipeline", metavar="TEXT",
              help="Draw the graph after these passes; 'default' for all that 'hintc convert' "
              "runs. Default: as it came.")  # fmt: skip
@click.option("--full", is_flag=True,
              help="Draw every node, constants and bodies of fused calls too.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), metavar="N",
              help="Collapse name scopes of graphs with more boxes than this.")  # fmt: skip
@debug_options
def viz_command(output: str, full: bool, limit: int | None, **options: Any) -> None:
    """Draw a graph.

    SOURCE is a SavedModel folder, a .pb, .pbtxt, .keras or .h5 file, or a .hir file (hintc's IR
    as text).
    """
    check_output(output, _ENDINGS)
    check_kept(output, options["source"])
    check_source(options["source"])
    module = _module(options)
    from hintc.viz import to_dot

    limits = {} if limit is None else {"limit": limit}
    dot = to_dot(module, full=full, title=_title(options), **limits)
    write_output(output, _picture(dot, output))


def _title(options: dict[str, Any]) -> str:
    name, pipeline = Path(options["source"]).name, options["pipeline"]
    if not pipeline:
        return name
    passes = resolve_pipeline(pipeline).names
    return f"{name} after {pipeline if len(passes) < _FEW else f'{len(passes)} passes'}"


def _picture(dot: str, output: str) -> str | bytes:
    suffix = Path(output).suffix
    if output == STDOUT or suffix == ".dot":
        return dot
    from hintc.viz import render

    image_format = cast("Literal['svg', 'png']", suffix.removeprefix("."))
    drawn = render(dot, image_format=image_format)
    if drawn.image is None:
        raise HintcError(
            f"cannot draw '{output}'", why=drawn.note, remedy="Write a .dot file instead."
        )
    return drawn.image


def _module(options: dict[str, Any]) -> Module:
    """What to draw. A graph that is drawn as it came need not be frozen, nor have clear ends."""
    path = Path(options["source"]).expanduser()
    if path.suffix == ".hir":
        return _after(_parsed(path), options)
    pipeline = options["pipeline"]
    switches = DebugSwitches.of(options)
    with compiler_session(switches) as errors, progress(errors, True) as shown:
        if pipeline is None and not options["outputs"] and path.suffix in (".pb", ".pbtxt"):
            return _as_it_came(path)
        from hintc.convert import compile as compile_source

        chosen = resolve_pipeline(pipeline or "")
        return compile_source(
            options["source"],
            list(options["inputs"]) or None,
            list(options["outputs"]) or None,
            signature=options["signature"],
            pipeline=chosen,
            instruments=[*shown, *instruments(switches, chosen, errors)],
            verify_each=switches.verify_each,
        ).module


def _as_it_came(path: Path) -> Module:
    from hintc.graphdef import lift
    from hintc.source import read_source
    from hintc.source.graph_file import read_graph_file

    if path.stem == "saved_model":
        return read_source(path).lift()
    return lift(read_graph_file(path))


def _parsed(path: Path) -> Module:
    from hintc.source.graph_file import read_bytes
    from hintc.text import parse_module

    try:
        return parse_module(read_bytes(path).decode())
    except UnicodeDecodeError as error:
        raise HintcError(f"'{path}' is no text", why=str(error)) from error


def _after(module: Module, options: dict[str, Any]) -> Module:
    if options["pipeline"] is None:
        return module
    switches = DebugSwitches.of(options)
    pipeline = resolve_pipeline(options["pipeline"])
    with compiler_session(switches) as errors:
        watching = instruments(switches, pipeline, errors)
        pipeline.run(module, watching, verify_each=switches.verify_each)
    return module
