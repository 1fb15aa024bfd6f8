"""The ranges of tensors: what calibration finds and the quantiser reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.kernels import AnyKernel
from hintc.tflite.flatbuffer import Array, Model
from hintc.tflite.schema import schema

Sample = Sequence[Array]
"""One value for each input, in the model's order."""
Range = tuple[float, float]
"""Least and greatest value."""
Ranges = dict[tuple[int, int], Range]
"""(subgraph, tensor) -> its range."""


def joint(*ranges: Range | None) -> Range:
    """The least range that holds them all; None is none."""
    there = [found for found in ranges if found is not None]
    return min(low for low, _ in there), max(high for _, high in there)


def range_of(value: Array) -> Range | None:
    """The range of an array; None for an empty one."""
    return (float(value.min()), float(value.max())) if value.size else None


def set_ranges(model: Model, ranges: Ranges) -> None:
    """Writes ranges into the model's tensors, where the quantiser looks for them."""
    for (number, index), (low, high) in ranges.items():
        tensor = model.subgraphs[number].tensor(index)
        if tensor.quantization is None:
            tensor.quantization = schema().QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = [low], [high]


def runs(
    model: Model,
    tensors: set[int],
    samples: Sequence[Sample],
    kernels: Mapping[str, AnyKernel] | None = None,
) -> Iterator[dict[int, Array]]:
    """For each sample the values of these tensors of the main subgraph.

    Args:
        model: is not changed.
        tensors: inputs, or results of operators.
        samples: run one after the other on one instance.
        kernels: for its custom operators.

    Raises:
        HintcError: the model does not run.
    """
    copied = Model.read(model.write())
    copied.root.signatureDefs = None
    graph = copied.subgraphs[0].graph
    fed = {tensor: place for place, tensor in enumerate(graph.inputs) if tensor in tensors}
    computed = sorted(tensors - fed.keys())
    graph.outputs = computed or graph.outputs
    interpreter = Interpreter(copied.write(), delegates=False, kernels=kernels)
    for number, sample in enumerate(samples):
        try:
            values = interpreter.run(list(sample)).values()
        except HintcError as error:
            raise HintcError(
                f"the model does not run on sample {number} of representative_dataset",
                why=error.why or error.what,
                remedy="Leave such samples out.",
            ) from error
        found = {tensor: sample[place] for tensor, place in fed.items()}
        if computed:
            found |= dict(zip(computed, values, strict=True))
        yield found
