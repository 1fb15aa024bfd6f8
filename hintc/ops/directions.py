"""What the bidirectional ops share: each is its unidirectional op twice, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hintc.ops.arithmetic import Array, Exact
from hintc.ops.fused_op import Constraint, FusedOp, Use
from hintc.ops.spec import AttributeValue

FORWARD, BACKWARD = "fw_", "bw_"
"""Prefixes of the operands and results of the two directions."""
AUXILIARY = "auxiliary_input"
"""A second sequence: with weights of its own each direction adds it to its input; without, it is
the input of the backward direction."""
MERGED = "merge_outputs"


def outputs(attributes: Mapping[str, AttributeValue], state: str) -> dict[str, tuple[str, ...]]:
    """The kernel's outputs, as `BuiltinLowering.outputs`; `state` is what each step gives."""
    if attributes[MERGED]:
        return {f"{FORWARD}output": (FORWARD + state, BACKWARD + state)}
    return {f"{prefix}output": (prefix + state,) for prefix in (FORWARD, BACKWARD)}


def both_ways(one_way: FusedOp) -> tuple[Constraint, ...]:
    """The constraints of the unidirectional op, kept by both directions, which are alike."""
    alike = Constraint(
        "the two directions differ in their operands",
        lambda use: _slots(use, FORWARD, one_way) == _slots(use, BACKWARD, one_way),
    )
    return (alike, *(_of_both(c, one_way) for c in one_way.constraints if "tflite" in c.targets))


NEVER = (
    Constraint("TFLite Micro has no such kernel", lambda use: False, targets=("tflm",)),
    Constraint(
        "TensorFlow's quantiser knows no bidirectional kernel",
        lambda use: use.quantize != "int8",
    ),
)
"""What no bidirectional op can be used for."""


def auxiliary_constraints(
    weights: frozenset[str], coupled: frozenset[str]
) -> tuple[Constraint, ...]:
    """What uses of the auxiliary input keep.

    Args:
        weights: slots of its weights.
        coupled: those of them that coupled gates (`CIFG`) do not have.
    """

    def complete(use: Use) -> bool:
        given = use.slots & weights
        gates = f"{FORWARD}input_to_input_weights" in use.slots
        return not given or given == (weights if gates or not coupled else weights - coupled)

    return (
        Constraint("weights of the auxiliary input come for all gates or for none", complete),
        Constraint(
            "weights of the auxiliary input need an auxiliary input",
            lambda use: AUXILIARY in use.slots or not use.slots & weights,
        ),
    )


def _of_both(constraint: Constraint, one_way: FusedOp) -> Constraint:
    def holds(use: Use) -> bool:
        return all(
            constraint.holds(replace(use, slots=_slots(use, prefix, one_way)))
            for prefix in (FORWARD, BACKWARD)
        )

    return replace(constraint, holds=holds)


def _slots(use: Use, prefix: str, one_way: FusedOp) -> frozenset[str]:
    """The unidirectional op's slots that one direction fills; states are left out."""
    return frozenset(
        slot.name
        for slot in one_way.operands
        if slot.kind != "state" and prefix + slot.name in use.slots
    )


def reference_both_ways(
    op: FusedOp,
    one_way: Callable[..., Mapping[str, Array]],
    operands: Mapping[str, npt.ArrayLike],
    attributes: Mapping[str, AttributeValue],
    arithmetic: Exact,
) -> dict[str, Array]:
    """The unidirectional reference on the sequence, and on the reversed one put back in order."""
    attrs = op.checked_attributes(attributes)
    time, merged = (0 if attrs["time_major"] else 1), attrs.pop(MERGED)
    found: dict[str, Array] = {}
    sources = {
        name: np.asarray(operands[name]) for name in ("input", AUXILIARY) if name in operands
    }
    weighted = any(name.startswith(FORWARD + AUXILIARY) for name in operands)
    for prefix in (FORWARD, BACKWARD):
        given = dict(sources)
        if prefix == BACKWARD:
            if AUXILIARY in sources and not weighted:
                given["input"] = sources[AUXILIARY]
            given = {name: np.flip(value, time) for name, value in given.items()}
        own = {
            name.removeprefix(prefix): value
            for name, value in operands.items()
            if name.startswith(prefix)
        }
        results = dict(one_way({**own, **given}, attrs, arithmetic))
        if prefix == BACKWARD:
            results["output"] = np.flip(results["output"], time)
        found.update({prefix + name: value for name, value in results.items()})
    if merged:
        sides = [found.pop(f"{prefix}output") for prefix in (FORWARD, BACKWARD)]
        found[f"{FORWARD}output"] = np.concatenate(sides, axis=-1)
    return found
