"""A v2 loop as a list of variables, each with its role."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hintc.graft import graft
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, FunctionRef, Graph, Module, Node, Port, Shape, producers
from hintc.ir.opdefs import is_stateful, side_effects
from hintc.ir.scan import dtype_of
from hintc.remark import Refused
from hintc_passes.analysis.noise import RANDOM, dropout_of
from hintc_passes.analysis.values import known_int, readers, source_of
from hintc_passes.loops.bounds import Sizes
from hintc_passes.loops.linear import STEP, Linear, linear

AFTERWARDS = ("TensorListStack", "TensorListGetItem", "TensorListGather", "TensorListLength")
"""Ops that may read a written list after the loop."""


class Role(enum.Enum):
    """What a loop variable is for."""

    COUNTER = "changes by the same amount in each step"
    INVARIANT = "never changes"
    READ_LIST = "a TensorList that is only read"
    WRITE_LIST = "a TensorList that each step writes once"
    LAST_LIST = "a TensorList of one row that every step writes"
    ENDED = "says which rows are at their end"
    AHEAD = "is the row that the step before has read for this one"
    STATE = "anything else"


@dataclass
class Variable:
    """One loop variable.

    Attributes:
        at: its position.
        first: its value before the loop.
        arg: it, in the body.
        next: its next value in the body, behind Identity nodes.
        role: what it is for.
        counts: for a counter, its value in terms of the step; for flags without lengths, what is
            0 or more once they are true.
        items: for a read list its TensorListGetItem nodes; for a written one the one
            TensorListSetItem.
        ends: for a written list the nodes that read its final value.
        of: the lengths of rows that have ended, None if all end at once; the list of rows read
            ahead.
        before: for a written list the TensorListSetItem that writes a row before the loop.
    """

    at: int
    first: Port
    arg: Port
    next: Port
    role: Role = Role.STATE
    counts: Linear = field(default_factory=Linear)
    items: list[Node] = field(default_factory=list)
    ends: list[Node] = field(default_factory=list)
    of: Variable | None = None
    before: Node | None = None

    @property
    def made(self) -> Node:
        """For a list what makes it, before any row of it is written."""
        first = source_of(self.first).node
        return first if self.before is None else source_of(first.operands[0]).node


@dataclass
class WhileLoop:
    """A loop node with its functions and variables.

    Attributes:
        shapes: static shapes of the loop's operands, and of the tensors behind lists.
        sizes: scalars outside the loop as linear forms.
        hoisted: nodes that were added outside to compute bounds that the condition computes.
        ahead: the conditions that read a row for the next step.
    """

    node: Node
    graph: Graph
    cond: Graph
    body: Graph
    variables: Sequence[Variable]
    shapes: Mapping[Port, Shape]
    sizes: Sizes
    hoisted: list[Node] = field(default_factory=list)
    ahead: list[Node] = field(default_factory=list)

    def with_role(self, role: Role) -> list[Variable]:
        """The variables of one role, in order."""
        return [v for v in self.variables if v.role is role]

    @classmethod
    def of(cls, module: Module, graph: Graph, node: Node) -> WhileLoop:
        """Read a loop and give its variables roles, but for lists: see `give_list_roles`.

        Raises:
            Refused: a step has side effects.
        """
        cond, body = (_function(module, node, key) for key in ("cond", "body"))
        effects = side_effects(body)
        if effects or body.control_results:
            raise _effect(effects[0] if effects else next(iter(body.control_results.values())))
        variables = [
            Variable(at, first, Port(body.args[at]), source_of(body.results[at].operands[0]))
            for at, first in enumerate(node.operands)
        ]
        shapes = _outer_shapes(module, graph, node)
        loop = cls(node, graph, cond, body, variables, shapes, Sizes(shapes))
        for variable in variables:
            if variable.next == variable.arg:
                variable.role = Role.INVARIANT
        for variable in variables:
            loop._find_counter(variable)
        return loop

    def give_list_roles(self) -> None:
        """Tell apart which lists are read and which are written.

        Raises:
            Refused: a TensorList or resource is used in a way that no Scan has.
        """
        for variable in self.variables:
            if variable.arg.node.attributes.get("T") is DType.VARIANT:
                self._give_list_role(variable)

    def variable_of(self, arg: Port) -> Variable | None:
        """The variable that an argument of the body or the condition is."""
        args = arg.node.graph.args if arg.node.op == "_Arg" else []
        return self.variables[args.index(arg.node)] if arg.node in args else None

    def _find_counter(self, variable: Variable) -> None:
        if variable.role is not Role.STATE or not self._is_scalar(variable):
            return
        itself = Linear.of(("value", variable.arg))
        following = linear(variable.next, lambda p: itself if p == variable.arg else self._leaf(p))
        stride = None if following is None else following - itself
        if stride is not None and stride.is_constant and stride.constant:
            variable.role = Role.COUNTER
            variable.counts = self.sizes.form(variable.first) + Linear.of(STEP) * stride.constant

    def _is_scalar(self, variable: Variable) -> bool:
        is_int = variable.arg.node.attributes.get("T") is DType.INT32
        return is_int and self.shapes[variable.first].rank == 0

    def form(self, port: Port) -> Linear | None:
        """A value of the body or of the condition in terms of the step and of values outside."""
        return linear(port, self._leaf)

    def _leaf(self, port: Port) -> Linear | None:
        variable = self.variable_of(port)
        if variable is not None:
            if variable.role is Role.COUNTER:
                return variable.counts
            if variable.role is Role.INVARIANT and self._is_scalar(variable):
                return self.sizes.form(variable.first)
            return None
        outside = self._outside(port) if port.node.graph is self.cond else None
        return None if outside is None else self.sizes.form(outside)

    def _outside(self, port: Port) -> Port | None:
        """The value outside that a value of the condition is; what it computes is hoisted."""
        needed = producers([port])
        values = {}
        for node in needed:
            if node.op == "_Arg":
                variable = self.variables[self.cond.args.index(node)]
                if variable.role is not Role.INVARIANT:
                    return None
                values[Port(node)] = variable.first
            elif is_stateful(node):
                return None
        nodes = [n for n in self.cond if n in needed and n.op != "_Arg"]
        copies = graft(nodes, self.graph, values, prefix=f"{self.node.name}/bound")
        self.hoisted.extend(reversed(copies.values()))
        return values.get(port) or Port(copies[port.node], port.index)

    def is_step(self, port: Port) -> bool:
        """True if a value of the body is the number of steps done before this one."""
        return self.form(port) == Linear.of(STEP)

    def _give_list_role(self, variable: Variable) -> None:
        if variable.role is Role.INVARIANT:
            self._check_read_list(variable)
            variable.role = Role.READ_LIST
        else:
            variable.role = self._check_write_list(variable)

    def _check_read_list(self, variable: Variable) -> None:
        first = source_of(variable.first).node
        if first.op != "TensorListFromTensor":
            raise bad_list(variable, f"it comes from a {first.op}")
        for reader, slot in readers(self.body, variable.arg):
            if reader.op == "_Retval" or reader in self.ahead:
                continue
            if reader.op != "TensorListGetItem" or slot != 0:
                raise bad_list(variable, f"a {reader.op} reads it")
            variable.items.append(reader)

    def _check_write_list(self, variable: Variable) -> Role:
        first = source_of(variable.first).node
        if first.op == "TensorListSetItem":
            variable.before, first = first, source_of(first.operands[0]).node
        if first.op != "TensorListReserve":
            raise bad_list(variable, _BEFORE.get(first.op, f"it comes from a {first.op}"))
        write = variable.next.node
        if write.op != "TensorListSetItem" or source_of(write.operands[0]) != variable.arg:
            raise bad_list(variable, f"a {write.op} changes it")
        if [reader for reader, _ in readers(self.body, variable.arg)] != [write]:
            raise bad_list(variable, "a step reads what earlier ones wrote")
        written = readers(self.body, Port(write))
        if [reader.op for reader, _ in written] != ["_Retval"]:
            raise bad_list(variable, "it is written more than once a step")
        variable.items.append(write)
        single = known_int(write.operands[1]) == 0 and known_int(first.operands[1]) == 1
        if single and variable.before is not None:
            raise bad_list(variable, "its only row is written before the loop")
        for reader, _ in readers(self.graph, Port(self.node, variable.at)):
            if reader.op != "TensorListStack" and (single or reader.op not in AFTERWARDS):
                raise bad_list(variable, f"a {reader.op} reads it after the loop")
            variable.ends.append(reader)
        return Role.LAST_LIST if single else Role.WRITE_LIST


_BEFORE = {
    "TensorListFromTensor": "its rows are there before the loop, and steps overwrite them",
    "TensorListSetItem": "several rows of it are written before the loop",
}
"""What a list that steps write comes from -> what is the matter."""


def _outer_shapes(module: Module, graph: Graph, node: Node) -> Mapping[Port, Shape]:
    lists = [source_of(port).node for port in node.operands]
    behind = [n.operands[0] for n in lists if n.op == "TensorListFromTensor"]
    used = dict.fromkeys((*node.operands, *behind, *map(source_of, behind)))
    found = infer_shapes(module, graph, [p for p in used if dtype_of(p) is not DType.VARIANT])
    return {**found, **_stated(node, found)}


def _stated(node: Node, found: Mapping[Port, Shape]) -> dict[Port, Shape]:
    """What the loop itself says of operands that depend on unknown arguments of a function."""
    stated = node.attributes.get("output_shapes")
    if not isinstance(stated, tuple) or len(stated) != len(node.operands):
        return {}
    return {
        port: shape
        for port, shape in zip(node.operands, stated, strict=True)
        if port in found and found[port].rank is None and isinstance(shape, Shape)
    }


def _function(module: Module, node: Node, key: str) -> Graph:
    ref = node.attributes.get(key)
    if not isinstance(ref, FunctionRef):
        raise Refused("loop-without-body", f"the loop has no attribute '{key}'")
    return module.function(ref.name, node=node).graph


def _effect(culprit: Node) -> Refused:
    """Why an operation keeps its loop from becoming a Scan."""
    dropout = dropout_of(culprit)
    reason = f"the {culprit.op} '{culprit.name}' in the loop must run once a step"
    remedy = "Remove it from the loop before conversion."
    if dropout is not None:
        reason = f"the dropout '{dropout.name}' in the loop draws new noise in each step"
        remedy = "Export the model for inference (keep_prob 1, rate 0, training=False)."
    elif culprit.op in RANDOM:
        reason = f"the {culprit.op} '{culprit.name}' in the loop draws new numbers in each step"
        remedy = "Draw the numbers of all steps before the loop, or leave the noise out."
    return Refused("loop-has-side-effects", reason, remedy)


def bad_list(variable: Variable, why: str) -> Refused:
    """Why a list of the loop is none of a Scan."""
    return Refused(
        "loop-list",
        f"loop variable {variable.at} ('{variable.arg.node.name}') is a TensorList that is not "
        f"read or written once a step at the step's index: {why}",
        "Let each step write one row, at its own index, to a TensorArray that only what comes "
        "after the loop reads.",
    )
