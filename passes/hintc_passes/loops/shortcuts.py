"""Conditions on the longest or shortest length that decide what a Select on the lengths gives."""

from __future__ import annotations

from dataclasses import dataclass

from hintc.graphdef.emit import known_array
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import FunctionRef, Module, Node, Port
from hintc.ir.opdefs import IF_OPS
from hintc_passes.analysis.values import known_scalar, source_of
from hintc_passes.loops.unread_results import BRANCHES

_AT_MOST = {"LessEqual": (0, True), "Less": (-1, True), "Greater": (0, False)}
_AT_MOST |= {"GreaterEqual": (-1, False)}
"""Op -> (offset, holds): ``x op c`` says whether ``x <= c + offset`` holds."""
_MIRRORED = {"LessEqual": "GreaterEqual", "Less": "Greater"}
_MIRRORED |= {other: op for op, other in _MIRRORED.items()}


@dataclass(frozen=True)
class _Frame:
    """The run of one branch of an If, itself perhaps inside of one."""

    node: Node
    branch: str
    outer: _Frame | None


@dataclass(frozen=True)
class _Value:
    """A value of a graph, or of a branch that runs."""

    port: Port
    frame: _Frame | None


@dataclass(frozen=True)
class _Bound:
    """``value <= at`` for all elements, or for none."""

    value: _Value
    at: int
    holds: bool


class Shortcuts:
    """Finds the branch of an If that gives in every case what the If gives.

    Args:
        module: has the branches.
    """

    def __init__(self, module: Module) -> None:
        self._module = module
        self._general: dict[tuple[Node, _Frame | None], str | None] = {}

    def general_branch(self, node: Node) -> str | None:
        """The attribute that has the branch; None if both are needed, or that is not known.

        Lengths of another number than there are rows, which make a Select fail, are not expected.
        """
        return self._general_branch(node, None)

    def _general_branch(self, node: Node, frame: _Frame | None) -> str | None:
        key = (node, frame)
        if key not in self._general:
            self._general[key] = None
            for branch, truth in zip(reversed(BRANCHES), (True, False), strict=True):
                known = self._known_if(_Value(node.operands[0], frame), truth)
                if known is not None and self._agree(node, frame, known):
                    self._general[key] = branch
                    break
        return self._general[key]

    def _agree(self, node: Node, frame: _Frame | None, known: _Bound) -> bool:
        """True if both branches give the same where something is known of the lengths."""
        sides = [self._results(_Frame(node, branch, frame)) for branch in BRANCHES]
        return len(sides[0]) == len(sides[1]) and all(
            self._resolve(one, known) == self._resolve(other, known)
            for one, other in zip(*sides, strict=True)
        )

    def _results(self, frame: _Frame) -> list[_Value]:
        ref = frame.node.attributes.get(frame.branch)
        assert isinstance(ref, FunctionRef)
        graph = self._module.function(ref.name, node=frame.node).graph
        return [_Value(result.operands[0], frame) for result in graph.results]

    def _resolve(self, value: _Value, known: _Bound | None) -> _Value:
        """What a value is, outside of branches as far as it is, if something is known."""
        while True:
            following = self._behind(value, known)
            if following is None:
                return value
            value = following

    def _behind(self, value: _Value, known: _Bound | None) -> _Value | None:
        port, frame = value.port, value.frame
        node = port.node
        if node.op == "Identity":
            return _Value(node.operands[0], frame)
        if node.op == "_Arg" and frame is not None:
            ref = frame.node.attributes[frame.branch]
            assert isinstance(ref, FunctionRef)
            args = self._module.function(ref.name).graph.args
            return _Value(frame.node.operands[1 + args.index(node)], frame.outer)
        if node.op in IF_OPS:
            branch = self._general_branch(node, frame)
            if branch is None:
                return None
            return self._results(_Frame(node, branch, frame))[port.index]
        if node.op == "Select" and known is not None:
            taken = self._decided(_Value(node.operands[0], frame), known)
            return None if taken is None else _Value(node.operands[1 if taken else 2], frame)
        return None

    # -- comparisons -------------------------------------------------------------------------

    def _bound(self, condition: _Value) -> _Bound | None:
        """A comparison with a constant."""
        condition = self._resolve(condition, None)
        node = condition.port.node
        if node.op not in _AT_MOST:
            return None
        left, right = (self._resolve(_Value(p, condition.frame), None) for p in node.operands)
        op, at = node.op, known_scalar(right.port)
        if at is None:
            op, left, at = _MIRRORED[op], right, known_scalar(left.port)
        if at is None:
            return None
        offset, holds = _AT_MOST[op]
        return _Bound(left, at + offset, holds)

    def _known_if(self, condition: _Value, truth: bool) -> _Bound | None:
        """What holds for all lengths if a condition on the longest or shortest is true or not."""
        bound = self._bound(condition)
        if bound is None:
            return None
        holds = bound.holds == truth
        node = bound.value.port.node
        if node.op != ("Max" if holds else "Min") or node.attributes.get("keep_dims"):
            return None
        axes = known_array(source_of(node.operands[1]))
        lengths = self._resolve(_Value(node.operands[0], bound.value.frame), None)
        if axes is None or axes.reshape(-1).tolist() not in ([0], [-1]):
            return None
        return _Bound(lengths, bound.at, holds) if self._is_vector(lengths) else None

    def _is_vector(self, value: _Value) -> bool:
        port = value.port
        if value.frame is not None or port.node.op == "_Arg":
            return False
        return infer_shapes(self._module, port.node.graph, [port])[port].rank == 1

    def _decided(self, condition: _Value, known: _Bound) -> bool | None:
        """Whether a comparison of the lengths is true for all, or for none; None if neither."""
        bound = self._bound(condition)
        if bound is None or bound.value != known.value:
            return None
        follows = known.at <= bound.at if known.holds else known.at >= bound.at
        return bound.holds == known.holds if follows else None
