"""What a box of a picture says about a node: its kind, title, lines and tooltip."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hintc.errors import HintcError
from hintc.ir import (
    ARG,
    RESULT,
    SCAN,
    AttributeValue,
    Function,
    FunctionRef,
    Module,
    Node,
    Port,
    Scan,
    Shape,
    Tensor,
)
from hintc.ir.opdefs import IF_OPS, WHILE_OPS
from hintc.text import print_node

HINT = "_tflite_function_uuid"
"""Attribute of a node that marks an input or output of a hint."""
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_CONTROL_FLOW = frozenset(
    {*WHILE_OPS, *IF_OPS, "Case", "StatelessCase"}
    | {"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"}
)
_INPUTS = frozenset({"Placeholder", "PlaceholderWithDefault", ARG})
_TOOLTIP = 600


@dataclass(frozen=True)
class Box:
    """A box of a picture.

    Attributes:
        kind: ``op``, ``input``, ``output``, ``scan``, ``fused``, ``hint``, ``call``,
            ``control-flow``, ``group``, ``argument`` or ``result`` (several of these).
        title: first line.
        lines: the others.
        tooltip: shown when the mouse rests on the box.
        slots: a name for each operand; empty where there is none.
    """

    kind: str
    title: str
    lines: tuple[str, ...] = ()
    tooltip: str = ""
    slots: tuple[str, ...] = ()


def box_of(node: Node, module: Module) -> Box:
    """The box of a single node."""
    tooltip = print_node(node)
    if len(tooltip) > _TOOLTIP:
        tooltip = tooltip[:_TOOLTIP] + " …"
    if node.op == SCAN:
        kind, title, lines, slots = _scan(node)
    elif node.op == RESULT:
        name = node.attributes.get("result")
        kind, title, lines, slots = "output", short(_text(name) or node.name), (), ()
    elif node.op in _INPUTS:
        kind, title, lines, slots = "input", short(node.name), (), ()
    else:
        kind, title, lines, slots = _operation(node, module)
    shape = shape_of(Port(node))
    shapes = (str(shape),) if shape is not None and shape.dims is not None else ()
    return Box(kind, title, (*lines, *shapes), tooltip, slots)


_Label = tuple[str, str, tuple[str, ...], tuple[str, ...]]


def _operation(node: Node, module: Module) -> _Label:
    called = function_called(node, module)
    if called is not None:
        return _call(node, called)
    name = short(node.name)
    lines = () if name == node.op else (name,)
    if node.op in _CONTROL_FLOW:
        bodies = [v.name for v in node.attributes.values() if isinstance(v, FunctionRef)]
        return "control-flow", node.op, (*lines, *(f"@{b}" for b in bodies)), ()
    if HINT in node.attributes:
        return "hint", f"hint {_text(node.attributes.get('_tflite_function_name'))}", lines, ()
    if "_hintc_body" in node.attributes:
        return "hint", f"stub {node.op}", lines, ()
    return "op", node.op, lines, ()


def function_called(node: Node, module: Module) -> Function | None:
    """The function that a call node calls; None for any other node."""
    ref = node.attributes.get("f") if node.op in _CALLS else None
    if isinstance(ref, FunctionRef):
        return module.functions.get(ref.name)
    return module.functions.get(node.op)


def is_fused_call(node: Node, module: Module) -> bool:
    """True for a call of a function that a fused op implements."""
    called = function_called(node, module)
    return called is not None and isinstance(called.attributes.get("_implements"), FunctionRef)


def _call(node: Node, called: Function) -> _Label:
    implements, hint = called.attributes.get("_implements"), called.attributes.get("_hintc_hint")
    name = short(node.name)
    if isinstance(implements, FunctionRef):
        spec = _json(dict(implements.attributes).get("spec"))
        slots = tuple(_strings(spec.get("slots")))
        title = str(spec.get("op", implements.name.removeprefix("hintc.")))
        return "fused", title, (name, *_options(spec.get("attributes"))), slots
    if hint is not None:
        declared = _json(hint)
        return "hint", f"hint {declared.get('function', '')}", (name,), ()
    return "call", "call", (name, f"@{short(called.name)}"), ()


def _scan(node: Node) -> _Label:
    try:
        scan = Scan.of(node)
    except HintcError:
        return "scan", SCAN, (node.name, "damaged"), ()
    what = [f"{len(scan.xs)} xs, {len(scan.states)} states, {len(scan.reverse_ys)} ys"]
    if any((*scan.reverse_xs, *scan.reverse_ys)):
        what.append("reversed")
    if scan.fusion is not None:
        what += [f"is a {scan.fusion.op}", *_options(scan.fusion.attributes)]
    what += [f"form: {scan.form}"] if scan.form else []
    what += [f"step: @{short(scan.body)}"]
    slots = ["trip count", *("x" for _ in scan.xs), *("state" for _ in scan.states)]
    slots += ["" for _ in scan.invariants]
    slots += list(scan.fusion.operands) if scan.fusion is not None else []
    return "scan", SCAN, (short(node.name), *what), tuple(slots)


def group_box(name: str, nodes: Iterable[Node], kind: str = "group") -> Box:
    """The box that stands for several nodes, e.g. a name scope."""
    nodes = list(nodes)
    name = name or "(no scope)"  # Graphviz 14 crashes on a label whose first line is empty
    if kind in ("argument", "result"):
        names = "\n".join(node.name for node in nodes)
        return Box(kind, f"{len(nodes)} {name}", (), names)
    ops = Counter(node.op for node in nodes)
    count = sum(ops.values())
    most = [f"{times} {op}" for op, times in ops.most_common(4)]
    more = ["…"] if len(ops) > 4 else []
    tooltip = "\n".join([name, *(f"{times} {op}" for op, times in ops.most_common(25))])
    return Box(kind, name, (f"{count} nodes", *_wrapped([*most, *more])), tooltip)


def _wrapped(words: list[str]) -> list[str]:
    return [", ".join(words[at : at + 2]) for at in range(0, len(words), 2)]


def shape_of(port: Port) -> Shape | None:
    """Shape of a value, if an attribute says it."""
    at = port.node.attributes
    shapes = at.get("_output_shapes")
    if isinstance(shapes, tuple) and port.index < len(shapes):
        shape: AttributeValue | None = shapes[port.index]
    else:
        shape = at.get("shape") if port.node.op in _INPUTS else None
    value = at.get("value")
    if isinstance(value, Tensor):
        return value.shape
    return shape if isinstance(shape, Shape) else None


def short(name: str) -> str:
    """The end of a long name."""
    last = name.rstrip("/").rpartition("/")[2]
    return last if len(last) <= 32 else f"{last[:16]}…{last[-14:]}"


def _text(value: AttributeValue | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _json(value: AttributeValue | None) -> Mapping[str, object]:
    try:
        found = json.loads(_text(value) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _strings(value: object) -> list[str]:
    return [str(v) if v is not None else "" for v in value] if isinstance(value, list) else []


def _options(attributes: object) -> list[str]:
    if not isinstance(attributes, Mapping):
        return []
    told = [f"{k} {v}" for k, v in sorted(attributes.items()) if v not in (0, 0.0, False, "")]
    return [", ".join(told)] if told else []
