"""quantize="int8": samples, quantisation, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hintc.convert.quantization_cost import Feed, quantization_cost
from hintc.convert.references import reference_kernels
from hintc.convert.results import Compiled
from hintc.convert.samples import ArrayDataset, Dataset, Samples, read_samples
from hintc.errors import EquivalenceError
from hintc.instrument import Instrument
from hintc.ops import Target
from hintc.precision import float_nodes
from hintc.report import QuantizationCost
from hintc.runtime.kernels import AnyKernel
from hintc.runtime.tensor_info import TensorInfo
from hintc.source import SourceModel
from hintc.tflite.flatbuffer import Model
from hintc.tflite.integers.quantize import IoDtype, quantize_to_int8
from hintc.tflite.state import StateMode

Feeds = Sequence[Mapping[str, Any] | None]
"""Feeds to compare on; None stands for made-up ones."""

MOST_MEAN, MOST_LARGEST = 0.05, 0.5
"""What `check` allows an int8 model, of the span of a float output: mean and largest error. Trained
and random LSTMs were measured at 0.005 to 0.01 and 0.02 to 0.05; a classifier's probabilities can
turn over where it cannot decide. So this finds wrong weights or wiring, not a loss of accuracy:
that is what `Report.cost` is for. What the output's own int8 values cannot tell apart is allowed
too: probabilities have steps of 1/256, and those of an untrained classifier vary by little more."""


@dataclass(frozen=True)
class IntegerOptions:
    """The options of `hintc.convert` that ``quantize="int8"`` has; see there."""

    dataset: Dataset | ArrayDataset
    keep_float: tuple[str, ...]
    io_dtype: IoDtype
    target: Target
    state: StateMode
    kernels: Mapping[str, AnyKernel]


def to_integers(
    compiled: Compiled, tflite: bytes, options: IntegerOptions, instruments: Sequence[Instrument]
) -> tuple[bytes, Samples]:
    """Quantises a legalised model and notes in the report what stays float.

    Raises:
        HintcError: see `read_samples` and `quantize_to_int8`.
    """
    report = compiled.report
    model = Model.read(tflite)
    main = model.subgraphs[0]
    codes = [code for _, op in model.operators() if (code := model.custom_code(op)) is not None]
    infos = [
        TensorInfo(name, main.shape(tensor) or (), main.dtype(tensor) or np.dtype(object))
        for name, tensor in zip(compiled.inputs, main.graph.inputs, strict=True)
    ]
    samples = read_samples(options.dataset, infos, compiled.source.input_keys)

    def progress(done: int, total: int) -> None:
        for instrument in instruments:
            instrument.progress("calibrating", done, total)

    made = quantize_to_int8(
        tflite,
        samples.calibration,
        keep_float=options.keep_float,
        made_by=_makers(compiled),
        held=float_nodes(compiled.module),
        io_dtype=options.io_dtype,
        target=options.target,
        state=options.state,
        progress=progress,
        kernels={**reference_kernels(codes), **options.kernels},
    )
    report.sizes["float tflite"] = len(tflite)
    report.add_notes("stays-float", [(note.node, note.text) for note in made.notes])
    return made.tflite, samples


def _makers(compiled: Compiled) -> dict[str, str]:
    """Output -> the node whose result it is, behind the Identity that gives it its name."""
    nodes = {node.name: node for node in compiled.graph_def.node}
    found = {}
    for output in compiled.outputs:
        name = output
        while (node := nodes.get(name.partition(":")[0])) is not None and node.op == "Identity":
            name = node.input[0]
        found[output] = name.partition(":")[0]
    return found


def measured_cost(
    source: SourceModel,
    tflite: bytes,
    feeds: Feeds,
    samples: Samples | None,
    state: StateMode,
    kernels: Mapping[str, AnyKernel] | None,
) -> QuantizationCost | None:
    """What quantisation costs: on given feeds, else held-out samples, else those of calibration.

    None if there are neither feeds nor samples.
    """
    tensors = {key: tensor for tensor, key in source.input_keys.items()}
    chosen: list[Feed] = [
        {tensors.get(name, name).removesuffix(":0"): value for name, value in feed.items()}
        for feed in feeds
        if feed is not None
    ]
    measured_on = "given feeds"
    if not chosen and samples is not None:
        held_out = samples.held_out
        measured_on = "held-out samples" if held_out else "samples of the calibration"
        chosen = [
            dict(zip(source.inputs, sample, strict=True))
            for sample in held_out or samples.calibration
        ]
    if not chosen:
        return None
    return quantization_cost(
        source, tflite, chosen, measured_on=measured_on, state=state, kernels=kernels
    )


def check_cost(cost: QuantizationCost) -> None:
    """Refuses an int8 model that is further off than rounding explains.

    Raises:
        EquivalenceError: names the output.
    """
    for name, error in cost.outputs.items():
        mean, largest = MOST_MEAN * error.span, MOST_LARGEST * error.span
        # a value between two steps is off by a half, and what it is made of adds to that
        if error.mean > max(mean, error.step) or error.largest > max(largest, 2 * error.step):
            raise EquivalenceError(
                f"the int8 model differs by up to {error.largest:.3g}, {error.mean:.3g} on average",
                node=name,
                why=f"on {cost.where}; the output's span is {error.span:.3g}",
                remedy="Give representative_dataset samples like the real inputs, or keep the "
                "layer in float with keep_float.",
            )
