"""Values that never change."""

from __future__ import annotations

from hintc.ir import Array, Port, Tensor


def constant_value(port: Port) -> Array | None:
    """The array that a value always has, looked up through Identity; None if it may vary."""
    node = port.node
    while node.op == "Identity":
        node = node.operands[0].node
    value = node.attributes.get("value") if node.op == "Const" else None
    return value.array if isinstance(value, Tensor) else None
