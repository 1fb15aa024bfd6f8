"""Do fused calls compute what their ops' reference functions say?

A fused call keeps what it replaced as its body. Where the declaration of its op has a `reference`
too, the two are compared on the values that really come in; so are its shape rule and the shapes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hintc.convert.results import Compiled
from hintc.equivalence import ATOL, RTOL, made_feeds
from hintc.errors import EquivalenceError, HintcError
from hintc.inlining import CALL_OPS, callee
from hintc.ir import Array, FunctionRef, Module
from hintc.ops import PREFIX, CustomLowering, FusedOp, Spec, declared, declared_names
from hintc.runtime.kernel_call import Kernel
from hintc.runtime.session import Session


def reference_kernels(codes: Collection[str]) -> dict[str, Kernel]:
    """References as kernels, so that a model with custom operators runs.

    Args:
        codes: custom codes of the model.

    Returns:
        Custom code -> function, for declared ops that name their operands and have a reference.
    """
    found: dict[str, list[FusedOp]] = {}
    for op in map(declared, declared_names()):
        if op is not None and isinstance(op.lowering, CustomLowering):
            found.setdefault(op.lowering.code, []).append(op)
    return {
        code: partial(_by_slot, ops[0])
        for code, ops in found.items()
        # of two ops with one code nobody knows which it is
        if code in codes and len(ops) == 1 and ops[0].reference and not ops[0].variadic
    }


def _by_slot(op: FusedOp, /, *operands: Array | None, **attributes: Any) -> Any:
    """The reference called as kernels are: operands in order, None for an absent one."""
    assert op.reference is not None
    given = zip(op.slot_names, operands, strict=False)  # absent ones at the end are left out
    present = {slot: value for slot, value in given if value is not None}
    return op.reference(**present, **attributes)


@dataclass(frozen=True)
class _Call:
    """A fused call of the main graph, by the names of its tensors."""

    name: str
    op: FusedOp
    spec: Spec
    operands: Mapping[str, str]
    results: Mapping[str, str]


def check_references(compiled: Compiled, feeds: Sequence[Mapping[str, Any] | None]) -> None:
    """Compare each fused call of the main graph with its op's reference, if it has one.

    Args:
        compiled: the lowered graph.
        feeds: by input name; None stands for made-up ones.

    Raises:
        EquivalenceError: a call computes something else than its reference.
        HintcError: a reference fails, or returns another number of results.
    """
    calls = list(_calls(compiled.module))
    if not calls:
        return
    fetches = [t for c in calls for t in (*c.operands.values(), *c.results.values())]
    with Session(compiled.graph_def) as session:
        for feed in feeds:
            infos = tuple(session.info(name) for name in compiled.inputs)
            for values in [feed] if feed is not None else made_feeds(infos, 0, (1, 3)):
                found = session.run(values, list(dict.fromkeys(fetches)))
                for call in calls:
                    _compare(call, found)


def _calls(module: Module) -> Iterator[_Call]:
    for node in module.graph:
        function = callee(module, node) if node.op in CALL_OPS else None
        marking = function.attributes.get("_implements") if function is not None else None
        if not isinstance(marking, FunctionRef):
            continue
        op = declared(marking.name.removeprefix(PREFIX))
        text = dict(marking.attributes).get("spec")
        if op is None or op.reference is None or not isinstance(text, bytes):
            continue
        spec = op.parse_spec(text.decode())
        operands = {
            slot: f"{port.node.name}:{port.index}"
            for slot, port in zip(spec.slots, node.operands, strict=True)
            if slot is not None
        }
        results = {name: f"{node.name}:{at}" for at, name in enumerate(spec.results)}
        yield _Call(node.name, op, spec, operands, results)


def _compare(call: _Call, values: Mapping[str, Array]) -> None:
    wanted = _referred(call, {slot: values[name] for slot, name in call.operands.items()})
    for result, tensor in call.results.items():
        body, reference = values[tensor], wanted[result]
        if body.shape != reference.shape:
            raise EquivalenceError(
                f"result '{result}' of '{call.op.name}' has shape {list(body.shape)}",
                node=call.name,
                why=f"its reference gives {list(reference.shape)}",
            )
        if not np.allclose(reference, body, RTOL, ATOL, equal_nan=True):
            error = float(np.max(np.abs(reference - body)))
            raise EquivalenceError(
                f"'{call.op.name}' differs from its reference by up to {error:.3g}",
                node=call.name,
                why="what the call replaced computes something else than the declaration says",
                remedy="Correct the pattern, its operands or attributes, or the reference.",
            )


def _referred(call: _Call, operands: Mapping[str, Array]) -> dict[str, Array]:
    assert call.op.reference is not None
    try:
        returned = call.op.reference(**operands, **call.spec.attributes)
    except Exception as error:  # whatever a user's function raises
        raise HintcError(
            f"the reference of '{call.op.name}' fails",
            node=call.name,
            why=f"{type(error).__name__}: {error}",
        ) from error
    arrays = returned if isinstance(returned, tuple | list) else (returned,)
    names = call.op.results or tuple(call.results)
    if len(arrays) != len(names):
        raise HintcError(
            f"the reference of '{call.op.name}' returns {len(arrays)} results, not {len(names)}"
        )
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}
