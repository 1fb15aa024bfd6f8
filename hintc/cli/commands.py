"""``hintc convert``, ``compile`` and ``explain``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hintc.cli.explain import explanation
from hintc.cli.options import (
    debug_options,
    json_option,
    pipeline_options,
    quantize_options,
    source_options,
    weights_option,
)
from hintc.cli.session import (
    DebugSwitches,
    compiler_session,
    instruments,
    progress,
    resolve_pipeline,
)
from hintc.cli.show import show_report
from hintc.errors import HintcError, NothingFusedError
from hintc.files import write_atomically

if TYPE_CHECKING:
    from hintc.convert import Compiled
    from hintc.report import Report

STDOUT = "-"
_SAVED_MODEL = ("*.pb", "*.pbtxt", "variables/*", "assets/**/*")
"""The files in a SavedModel's folder."""


@click.command("convert")
@source_options
@click.option("-o", "output", required=True, metavar="FILE",
              help="The .tflite file to write; '-' for standard output.")  # fmt: skip
@quantize_options
@pipeline_options
@json_option
@debug_options
def convert_command(output: str, as_json: bool, **options: Any) -> None:
    r"""Convert a model to TFLite.

    SOURCE is a SavedModel folder, or a .pb, .pbtxt, .keras or .h5 file.

    \b
    hintc convert model.keras -o model.tflite --check
    hintc convert frozen.pb --input x --output y --quantize dynamic -o model.tflite
    """
    check_output(output)
    check_kept(output, options["source"], options["representative_data"])
    result = _run("convert", options, progress_shown=output != STDOUT or sys.stderr.isatty())
    _require_fused(options, result.report)
    write_output(output, result.tflite)
    show_report(result.report, as_json=as_json, to_stderr=output == STDOUT)


@click.command("compile")
@source_options
@click.option("-o", "output", required=True, metavar="FILE",
              help="Where to write: .pb (GraphDef), .pbtxt (the same as text), .hir (hintc's IR "
              "as text); '-' for IR on standard output.")  # fmt: skip
@weights_option
@pipeline_options
@json_option
@debug_options
def compile_command(output: str, as_json: bool, **options: Any) -> None:
    """Run the passes only, and write the graph.

    TensorFlow runs the result: fused ops are calls of functions there.

    SOURCE is a SavedModel folder, or a .pb, .pbtxt, .keras or .h5 file.
    """
    check_output(output, (".pb", ".pbtxt", ".hir"))
    check_kept(output, options["source"])
    result = _run("compile", options)
    _require_fused(options, result.report)
    write_output(output, _encoded(result, output))
    show_report(result.report, as_json=as_json, to_stderr=output == STDOUT)


@click.command("explain")
@source_options
@click.option("--pass", "pass_name", metavar="PASS",
              help="Show more near misses, and only those, of this pass's pattern. It runs last "
              "if it is not in the pipeline.")  # fmt: skip
@weights_option
@pipeline_options
@json_option
@debug_options
def explain_command(as_json: bool, pass_name: str | None, **options: Any) -> None:
    """Say what would be fused, what not, and why.

    For every loop and every recurrent layer: what it becomes, why it is not fused, and what would
    help. Then what else the passes noted, and where patterns nearly fitted, with the first thing
    that differed.

    SOURCE is a SavedModel folder, or a .pb, .pbtxt, .keras or .h5 file.
    """
    options["pipeline"] = with_pass(pass_name, options["pipeline"])
    report = _run("compile", options).report
    if as_json:
        click.echo(report.to_json())
    else:
        click.echo("\n".join(explanation(report, pass_name)))
    _require_fused(options, report)


def _run(command: str, options: dict[str, Any], *, progress_shown: bool = True) -> Any:
    """Calls `hintc.convert` or `hintc.compile` with what the command line says."""
    switches = DebugSwitches.of(options)
    chosen = _chosen(options)
    check_source(options["source"])
    pipeline = resolve_pipeline(options["pipeline"])
    passed = {name: options[name] for name in (*chosen, "keep_float") if name in options}
    data = options.get("representative_data")
    if data is not None:
        check_source(data)
    with compiler_session(switches) as errors, progress(errors, progress_shown) as shown:
        # Not `hintc.convert`: type checkers take that for the module.
        from hintc.convert import compile as compile_source
        from hintc.convert import convert as convert_source

        if data is not None:
            from hintc.convert.samples import read_arrays

            passed["representative_dataset"] = read_arrays(data)
        watching = [*shown, *instruments(switches, pipeline, errors)]
        run: Any = convert_source if command == "convert" else compile_source
        return run(
            options["source"],
            list(options["inputs"]) or None,
            list(options["outputs"]) or None,
            signature=options["signature"],
            pipeline=pipeline,
            check=True if options["check"] else None,
            instruments=watching,
            verify_each=switches.verify_each,
            **passed,
        )


def _chosen(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of the drivers with a few values each, checked."""
    from hintc.convert.options import CHOICES, check_choices

    chosen = {name: options[name] for name in CHOICES if name in options}
    check_choices(chosen, spelled=lambda name: f"--{name.replace('_', '-')}")
    if "representative_data" in options:
        _check_int8(options)
    return chosen


def _check_int8(options: Mapping[str, Any]) -> None:
    """Refuses what does not go with ``--quantize``, in the words of the command line."""
    if options["quantize"] == "int8":
        if options["representative_data"] is None:
            raise HintcError(
                "--quantize int8 needs --representative-data FILE",
                why="the ranges of all values come from sample inputs",
                remedy="--quantize dynamic needs no data.",
            )
        return
    for name, used in (
        ("--representative-data", options["representative_data"] is not None),
        ("--io-dtype int8", options["io_dtype"] == "int8"),
        ("--keep-float", options["keep_float"]),
    ):
        if used:
            raise HintcError(f"{name} goes with --quantize int8 only", remedy="Leave it out.")


def with_pass(name: str | None, pipeline: str | None) -> str | None:
    """The pipeline, with the pass at its end if it is not in it.

    Finds a wrong name before TensorFlow is loaded.
    """
    if name is None or name in resolve_pipeline(pipeline).names:
        return pipeline
    from hintc import registry

    registry.find(name)
    return f"{'default' if pipeline is None else pipeline},{name}"


def check_source(source: str) -> None:
    """Finds a wrong path before TensorFlow is loaded."""
    if not source or not Path(source).expanduser().exists():
        raise HintcError(f"'{source}' does not exist", remedy="Check the path.")


def check_output(output: str, suffixes: tuple[str, ...] = ()) -> None:
    """Refuses, before anything slow, what cannot be written."""
    if output == STDOUT:
        return
    path = Path(output)
    if suffixes and path.suffix not in suffixes:
        raise HintcError(
            f"'{output}' has no known ending", remedy=f"Use one of {', '.join(suffixes)}."
        )
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise HintcError(f"cannot write '{output}'", why=f"there is no folder '{folder}'")
    if path.is_dir():
        raise HintcError(f"cannot write '{output}'", why="it is a folder")


def check_kept(output: str, *read: str | None) -> None:
    """Refuses to write over what is read."""
    target = Path(output)
    if output == STDOUT or not target.is_file():
        return
    for name in filter(None, read):
        path = Path(name).expanduser()
        files = [path, *(file for pattern in _SAVED_MODEL for file in path.glob(pattern))]
        if any(file.is_file() and file.samefile(target) for file in files):
            raise HintcError(
                f"cannot write '{output}'",
                why=f"it is what is read: '{name}'",
                remedy="Give -o another name.",
            )


def _require_fused(options: Mapping[str, Any], report: Report) -> None:
    if not options["require_fused"] or report.fused_ops:
        return
    remarks = report.not_fused or report.forms
    reasons = "; ".join(f"'{r.node}': {r.reason.rstrip('.')}" for r in remarks[:5])
    raise NothingFusedError(
        "nothing was fused",
        why=reasons or "no pass found anything to fuse",
        remedy="'hintc explain' says more.",
    )


def write_output(output: str, data: bytes | str) -> None:
    """Writes a result to its file, whole or not at all, or to standard output."""
    if output == STDOUT:
        sys.stdout.buffer.write(data.encode() if isinstance(data, str) else data)
        sys.stdout.buffer.flush()
    else:
        write_atomically(output, data)


def _encoded(result: Compiled, output: str) -> bytes | str:
    suffix = Path(output).suffix
    if output == STDOUT or suffix == ".hir":
        from hintc.text import print_module

        return print_module(result.module)
    if suffix == ".pbtxt":
        from google.protobuf import text_format

        return str(text_format.MessageToString(result.graph_def))
    return bytes(result.graph_def.SerializeToString(deterministic=True))
