"""Ways round the variants that a kernel gets wrong: the other major, or float32 weights.

Which variants those are is said by the declarations (`hintc.ops.Broken`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hintc.ops import BuiltinLowering, Quantize, Target, Use
from hintc.tflite.call import FusedCall
from hintc.tflite.flatbuffer import Operator
from hintc.tflite.state import batch_axis

_MAJOR = "time_major"


@dataclass(frozen=True)
class Detour:
    """How a use of a kernel differs from what was asked.

    Attributes:
        swaps_major: it runs time-major where the call is batch-major, or the reverse.
        keeps_float: its weights are not made int8.
        reason: why; "" where nothing differs.
    """

    swaps_major: bool = False
    keeps_float: bool = False
    reason: str = ""

    def notes(self) -> list[str]:
        """A sentence for each difference."""
        found = []
        if self.swaps_major:
            found.append(f"runs in the other major, between transposes: {self.reason}")
        if self.keeps_float:
            found.append(f"weights stay float32: {self.reason}")
        return found


def find_detour(call: FusedCall, target: Target, quantize: Quantize | None) -> Detour:
    """The nearest use of the kernel that is right; an empty detour where the call's own is.

    Raises:
        HintcError: none is, or the call breaks a rule that is no fault of the kernel.
    """
    asked = Use(
        frozenset(call.operands), call.attributes, target, quantize, _has_dynamic_batch(call)
    )
    violated = call.fused.violated(asked)
    if not violated:
        return Detour()
    reason = "; ".join(constraint.reason for constraint in violated)
    if all(constraint.broken for constraint in violated):
        for use in _nearest(asked):
            keeps_float = use.quantize != quantize
            if not call.fused.violated(use):
                return Detour(False, keeps_float, reason)
            if _MAJOR in use.attributes and not call.fused.violated(_swapped(use)):
                return Detour(True, keeps_float, reason)
    raise call.error(
        f"it cannot run on target '{target}'",
        why=reason,
        remedy="Convert with form='unroll' or form='while', without this kernel.",
    )


def _nearest(asked: Use) -> tuple[Use, ...]:
    """The use itself, and with float32 weights, where models mix such with int8 ones."""
    return (asked,) if asked.target == "tflm" else (asked, replace(asked, quantize=None))


def _has_dynamic_batch(call: FusedCall) -> bool:
    lowering = call.fused.lowering
    if not isinstance(lowering, BuiltinLowering) or not lowering.states:
        return False
    shape = call.subgraph.shape(call.operands[call.fused.operands[0].name])
    return shape is None or shape[batch_axis(call)] < 0


def _swapped(use: Use) -> Use:
    return replace(use, attributes={**use.attributes, _MAJOR: not use.attributes[_MAJOR]})


def swap_major(
    call: FusedCall, lowering: BuiltinLowering
) -> tuple[FusedCall, list[Operator], list[Operator]]:
    """The call in the other major, and the transposes before and after it.

    Sequences are the operands of rank 3 and the kernel's own results.
    """
    operands, results = dict(call.operands), dict(call.results)
    before: list[Operator] = []
    after: list[Operator] = []
    for slot in call.fused.operands:
        if len(slot.shape) == 3 and slot.name in operands:
            given = operands[slot.name]
            operands[slot.name] = _like_transposed(call, given)
            before.append(_transpose(call, given, operands[slot.name]))
    for name in lowering.outputs(call.attributes):
        if name in results:
            wanted = results[name]
            results[name] = _like_transposed(call, wanted)
            after.append(_transpose(call, results[name], wanted))
    attributes = {**call.attributes, _MAJOR: not call.attributes[_MAJOR]}
    spec = replace(call.spec, attributes=attributes)
    return replace(call, spec=spec, operands=operands, results=results), before, after


def _like_transposed(call: FusedCall, tensor: int) -> int:
    graph = call.subgraph
    shape = graph.shape(tensor)
    if shape is None or len(shape) != 3:
        raise call.error(f"'{graph.tensor_name(tensor)}' is not a sequence", why=f"shape {shape}")
    name = f"{graph.tensor_name(tensor)}/transposed"
    return graph.add_tensor(name, (shape[1], shape[0], shape[2]))


def _transpose(call: FusedCall, source: int, result: int) -> Operator:
    graph = call.subgraph
    order = graph.add_constant(f"{call.name}/swap_major", np.array([1, 0, 2], np.int32))
    return graph.make_op("TRANSPOSE", [source, order], [result], options="TransposeOptions")
