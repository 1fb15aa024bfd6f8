"""The kernels of a single step: what a sequence's kernel does, for a sequence of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hintc.ops.arithmetic import Array
from hintc.ops.fused_op import (
    BuiltinLowering,
    Constraint,
    FusedOp,
    OperandSlot,
)

NOT_IN_MICRO = Constraint("TFLite Micro has no such kernel", lambda use: False, targets=("tflm",))


def single_step(
    sequence: FusedOp,
    name: str,
    *,
    options: str,
    version: Callable[[bool], int],
    asymmetric_version: int,
    constraints: tuple[Constraint, ...] = (),
) -> FusedOp:
    """The declaration of the single-step op `name`: that of `sequence`, on an input [batch, n_in].

    Args:
        sequence: the op on sequences; its other operands and its results are the same.
        name: the op's name, also in the schema's ``BuiltinOperator``.
        options: name of its options table.
        version: as `BuiltinLowering.version`.
        asymmetric_version: as `BuiltinLowering.asymmetric_version`.
        constraints: further ones.
    """
    lowering = sequence.lowering
    assert isinstance(lowering, BuiltinLowering)
    fields = {name: field for name, field in lowering.fields.items() if name != "time_major"}
    _, *rest = sequence.operands
    return replace(
        sequence,
        name=name,
        operands=(OperandSlot("input", shape=("?", "n_in")), *rest),
        attributes={key: sequence.attributes[key] for key in fields},
        lowering=replace(
            lowering,
            operator=name,
            options=options,
            fields=fields,
            version=version,
            asymmetric_version=asymmetric_version,
        ),
        constraints=(
            *(c for c in sequence.constraints if "tflite" in c.targets),
            NOT_IN_MICRO,
            *constraints,
        ),
    )


def reference_of_a_step(
    sequence: Callable[..., dict[str, Array]],
    operands: Mapping[str, npt.ArrayLike],
    *arguments: object,
) -> dict[str, Array]:
    """The reference of the op on sequences, on a sequence of one step."""
    found = sequence({**operands, "input": np.asarray(operands["input"])[None]}, *arguments)
    return {**found, "output": found["output"][0]}
