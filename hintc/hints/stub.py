"""Stubs: the one-operation form of a hinted call, as a GraphDef carries it between tools.

A stub has the hinted function's name as op and the call's id as name. Operand `k` is the hint's
argument `k`; where that is missing stands a Const that nobody reads. Result `k` is the hint's
result `k`. ``_tflite_input_indices`` lists the arguments that are there. Ours also carry types,
shapes, the constant attributes and the body, so that they can be read back without loss; operands
after the last argument are what only the body reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from hintc.errors import HintError
from hintc.ir import DType, Node, Shape
from hintc.ir.opdefs import STUB_INDICES

BODY = "_hintc_body"
"""FunctionRef: the call's function, or the step function of a loop (then with `LOOP`)."""
LOOP = "_hintc_loop"
"""`LoopParts` as JSON: the stub stands for a loop over its body."""
CELL = "_hintc_cell"
"""JSON object: attributes of the recurrent kernel that the loop was recognised as."""
UNRECOGNISED = "_hintc_unrecognised"
"""True on a stub of a recurrent cell that was not recognised as what its hint says."""
OUTPUT_TYPES = "_output_types"
OUTPUT_SHAPES = "_output_shapes"
OUTPUT_QUANTIZED = "_output_quantized"


CellAttributes = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class LoopParts:
    """Which operands and results of a stub are which of the loop it stands for.

    Attributes:
        steps: number of steps; -1: that is the length of the first sequence.
        xs: operands that are sequences.
        states: operands that are initial states.
        invariants: operands that every step reads.
        ys: how many sequences the loop gives.
        results: for each result of the loop (final states, then sequences) the stub's result, or
            -1 where the stub has none for it.
    """

    steps: int
    xs: tuple[int, ...]
    states: tuple[int, ...]
    invariants: tuple[int, ...]
    ys: int
    results: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """As the attribute holds it."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> LoopParts:
        """The inverse of `to_bytes`; HintError if it is not one."""
        try:
            raw = json.loads(text)
            lists = {
                key: tuple(int(v) for v in raw[key])
                for key in ("xs", "states", "invariants", "results")
            }
            return cls(
                int(raw["steps"]),
                lists["xs"],
                lists["states"],
                lists["invariants"],
                int(raw["ys"]),
                lists["results"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise HintError(f"the attribute {LOOP} cannot be read", why=repr(error)) from error


def stub_indices(node: Node) -> tuple[int, ...]:
    """The arguments that a stub has.

    Raises:
        HintError: the attribute is no list of integers, or an operand is missing.
    """
    listed = node.attributes.get(STUB_INDICES, ())
    indices = listed if isinstance(listed, tuple) else (listed,)
    found = tuple(i for i in indices if isinstance(i, int))
    if len(found) != len(indices) or any(not 0 <= i < len(node.operands) for i in found):
        raise HintError(
            f"the stub's {STUB_INDICES} do not fit its {len(node.operands)} operands",
            node=node.name,
        )
    return found


def stub_types(node: Node) -> tuple[DType, ...]:
    """Element types of a stub's results; empty if it does not say them."""
    listed = node.attributes.get(OUTPUT_TYPES, ())
    return tuple(
        t for t in (listed if isinstance(listed, tuple) else (listed,)) if isinstance(t, DType)
    )


def stub_shapes(node: Node) -> tuple[Shape, ...]:
    """Shapes of a stub's results; empty if it does not say them."""
    listed = node.attributes.get(OUTPUT_SHAPES, ())
    return tuple(
        s for s in (listed if isinstance(listed, tuple) else (listed,)) if isinstance(s, Shape)
    )
