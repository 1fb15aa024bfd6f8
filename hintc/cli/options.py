"""Options that several commands share, as decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _all(*decorators: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Several decorators as one; the first comes first in the help text."""

    def decorate(function: _Command) -> _Command:
        decorated: _Command = functools.reduce(
            lambda done, decorator: decorator(done), reversed(decorators), function
        )
        return decorated

    return decorate


def _forms(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> object:
    """What the drivers take: a form for all, or one for each layer."""
    pairs = [text.rpartition("=") for text in given]
    if not pairs or (len(pairs) == 1 and not pairs[0][1]):
        return pairs[0][2] if pairs else "auto"
    if not all(layer for layer, _, _ in pairs):
        raise click.BadParameter("give one form, or LAYER=FORM for each of some layers")
    return {layer: form for layer, _, form in pairs}


source_options = _all(
    click.argument("source"),
    click.option("--input", "inputs", multiple=True, metavar="NAME",
                 help="An input tensor; repeat for more. Default: guessed."),
    click.option("--output", "outputs", multiple=True, metavar="NAME",
                 help="An output tensor; repeat for more. Default: guessed."),
    click.option("--signature", metavar="NAME", help="Signature of a SavedModel."),
)  # fmt: skip

pipeline_options = _all(
    click.option("--pipeline", metavar="TEXT",
                 help="Passes to run, e.g. 'collect-hints,raise-loops'. Default: all that is "
                 "needed; see 'hintc passes'."),
    click.option("--form", multiple=True, metavar="[LAYER=]FORM", callback=_forms,
                 help="Of recurrences: auto, fused, unroll or while; of one layer or node: "
                 "LAYER=FORM, repeat for more. Default: auto."),
    click.option("--optimize-for", default="size", metavar="AIM",
                 help="What auto aims at: size or latency. Default: size."),
    click.option("--target", default="tflite", metavar="TARGET",
                 help="What shall run the model: tflite, litert or tflm. Default: tflite."),
    click.option("--state", default="reset", metavar="STATE",
                 help="Of recurrences between two runs: reset or persist. Default: reset."),
    click.option("--check", is_flag=True, help="Compare the result with the source model."),
    click.option("--require-fused", is_flag=True,
                 help="Fail with status 3 if nothing was fused."),
)  # fmt: skip

quantize_options = _all(
    click.option("--quantize", metavar="HOW",
                 help="dynamic (int8 weights), float16 (weights), or int8 (weights and "
                 "activations)."),
    click.option("--representative-data", metavar="FILE",
                 help="For int8: .npz with an array for each input, or .npy for the only one; the "
                 "first axis counts the samples."),
    click.option("--io-dtype", default="float32", metavar="TYPE",
                 help="For int8: of inputs and outputs: float32 or int8. Default: float32."),
    click.option("--keep-float", multiple=True, metavar="NAME",
                 help="For int8: a layer or node that stays float; repeat for more."),
)  # fmt: skip

weights_option = click.option(
    "--quantize", metavar="HOW",
    help="How 'hintc convert' will store the weights: dynamic, float16 or int8. The fastest form "
    "depends on it; nothing is quantised here.",
)  # fmt: skip

debug_options = _all(
    click.option("--print-ir-after", "print_after", multiple=True, metavar="PASS",
                 help="Print the IR after this pass, to standard error; repeat for more."),
    click.option("--print-ir-after-all", "print_all", is_flag=True,
                 help="Print the IR after each pass."),
    click.option("--print-ir-after-change", "print_changes", is_flag=True,
                 help="Print the IR after each pass that changed it."),
    click.option("--dump-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
                 help="Write IR and pictures after each pass that changed something."),
    click.option("--reproducer", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
                 help="If a pass fails, write the IR before it and the rest of the pipeline."),
    click.option("--verify-each/--no-verify-each", default=True,
                 help="Verify the IR after each pass. Default: yes."),
    click.option("--timing", is_flag=True, help="Print how long each pass took."),
    click.option("--traceback", is_flag=True,
                 help="Show Python's traceback, and all that TensorFlow says."),
)  # fmt: skip

json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
