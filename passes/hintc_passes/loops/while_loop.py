"""A v2 loop as a list of variables, each with its role."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from hintc.ir import DType, FunctionRef, Graph, Module, Node, Port
from hintc.ir.opdefs import is_stateful
from hintc_passes.loops.refusal import Refusal
from hintc_passes.loops.values import is_unit_step, known_int, readers, source_of

OPS = ("StatelessWhile", "While")
"""Ops of functional loops."""


class Role(enum.Enum):
    """What a loop variable is for."""

    INDEX = "counts 0, 1, 2, ..."
    INVARIANT = "never changes"
    READ_LIST = "a TensorList that is read at the index"
    WRITE_LIST = "a TensorList that is written at the index"
    LAST_LIST = "a TensorList of one row that every step writes"
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
        items: for a read list its TensorListGetItem nodes; for a written one the one
            TensorListSetItem; for an invariant the nodes that take its row at the index.
        ends: for a written list the TensorListStack nodes that read its final value.
    """

    at: int
    first: Port
    arg: Port
    next: Port
    role: Role = Role.STATE
    items: list[Node] = field(default_factory=list)
    ends: list[Node] = field(default_factory=list)


@dataclass
class WhileLoop:
    """A loop node with its functions and variables.

    Attributes:
        hoisted: nodes that were added outside to compute bounds that the condition computes.
    """

    node: Node
    graph: Graph
    cond: Graph
    body: Graph
    variables: Sequence[Variable]
    hoisted: list[Node] = field(default_factory=list)

    def with_role(self, role: Role) -> list[Variable]:
        """The variables of one role, in order."""
        return [v for v in self.variables if v.role is role]

    @classmethod
    def of(cls, module: Module, graph: Graph, node: Node) -> WhileLoop:
        """Read a loop and give its variables roles.

        Raises:
            Refusal: a TensorList or resource is used in a way that no Scan has, or a step has
                side effects.
        """
        cond, body = (_function(module, node, key) for key in ("cond", "body"))
        effects = [n for n in body if is_stateful(n) and not n.op.startswith("_")]
        if effects or body.control_results:
            culprit = effects[0] if effects else next(iter(body.control_results.values()))
            raise Refusal(
                "loop-has-side-effects",
                f"the {culprit.op} '{culprit.name}' in the loop must run once a step",
                "Remove random ops, prints and checks from the loop before conversion.",
            )
        variables = [
            Variable(at, first, Port(body.args[at]), source_of(body.results[at].operands[0]))
            for at, first in enumerate(node.operands)
        ]
        loop = cls(node, graph, cond, body, variables)
        for variable in variables:
            if variable.next == variable.arg:
                variable.role = Role.INVARIANT
        for variable in variables:
            if loop._counts(variable):
                variable.role = Role.INDEX
        for variable in variables:
            if variable.arg.node.attributes.get("T") is DType.VARIANT:
                loop._give_list_role(variable)
            elif variable.role is Role.INVARIANT:
                taken = (reader for reader, slot in readers(body, variable.arg) if slot == 0)
                variable.items += [node for node in taken if loop._takes_row(node)]
        return loop

    def _counts(self, variable: Variable) -> bool:
        """True if the variable is 0, 1, 2, ...; autograph captures the step of a range."""
        if (
            variable.arg.node.attributes.get("T") is not DType.INT32
            or known_int(variable.first) != 0
        ):
            return False
        ones = {v.arg for v in self.with_role(Role.INVARIANT) if known_int(v.first) == 1}
        return is_unit_step(variable.next, variable.arg, ones)

    def is_index(self, port: Port) -> bool:
        """True if a value of the body is the number of steps done before this one."""
        port = source_of(port)
        return any(v.arg == port and v.role is Role.INDEX for v in self.variables)

    def _takes_row(self, node: Node) -> bool:
        """True for ``x[t]``, written as a slice or a gather."""
        if node.op == "GatherV2":
            plain = not node.attributes.get("batch_dims") and known_int(node.operands[2]) == 0
            return plain and self.is_index(node.operands[1])
        if node.op != "StridedSlice" or node.attributes.get("shrink_axis_mask") != 1:
            return False
        kinds = ("begin", "end", "ellipsis", "new_axis")
        begin = source_of(node.operands[1]).node
        return (
            not any(node.attributes.get(f"{kind}_mask") for kind in kinds)
            and begin.op == "Pack"
            and len(begin.operands) == 1
            and self.is_index(begin.operands[0])
            and known_int(node.operands[3]) == 1
        )

    def _give_list_role(self, variable: Variable) -> None:
        if variable.role is Role.INVARIANT:
            self._check_read_list(variable)
            variable.role = Role.READ_LIST
        else:
            variable.role = self._check_write_list(variable)

    def _check_read_list(self, variable: Variable) -> None:
        first = source_of(variable.first).node
        if first.op != "TensorListFromTensor":
            raise _bad_list(variable, f"it comes from a {first.op}")
        for reader, slot in readers(self.body, variable.arg):
            if reader.op == "_Retval":
                continue
            if reader.op != "TensorListGetItem" or slot != 0:
                raise _bad_list(variable, f"a {reader.op} reads it")
            if not self.is_index(reader.operands[1]):
                raise _bad_list(variable, "it is not read at the index of the step")
            variable.items.append(reader)
        for reader, _ in readers(self.graph, Port(self.node, variable.at)):
            raise _bad_list(variable, f"a {reader.op} reads it after the loop")

    def _check_write_list(self, variable: Variable) -> Role:
        first = source_of(variable.first).node
        if first.op != "TensorListReserve":
            raise _bad_list(variable, f"it comes from a {first.op}")
        write = variable.next.node
        if write.op != "TensorListSetItem" or source_of(write.operands[0]) != variable.arg:
            raise _bad_list(variable, f"a {write.op} changes it")
        if write.attributes.get("resize_if_index_out_of_bounds"):
            raise _bad_list(variable, "it grows while it is written")
        role = Role.WRITE_LIST
        if known_int(write.operands[1]) == 0 and known_int(first.operands[1]) == 1:
            role = Role.LAST_LIST
        elif not self.is_index(write.operands[1]):
            raise _bad_list(variable, "it is not written at the index of the step")
        if [reader for reader, _ in readers(self.body, variable.arg)] != [write]:
            raise _bad_list(variable, "a step reads what earlier ones wrote")
        written = readers(self.body, Port(write))
        if [reader.op for reader, _ in written] != ["_Retval"]:
            raise _bad_list(variable, "it is written more than once a step")
        variable.items.append(write)
        for reader, _ in readers(self.graph, Port(self.node, variable.at)):
            if reader.op != "TensorListStack":
                raise _bad_list(variable, f"a {reader.op} reads it after the loop")
            variable.ends.append(reader)
        return role


def _function(module: Module, node: Node, key: str) -> Graph:
    ref = node.attributes.get(key)
    if not isinstance(ref, FunctionRef):
        raise Refusal("loop-without-body", f"the loop has no attribute '{key}'")
    return module.function(ref.name, node=node).graph


def _bad_list(variable: Variable, why: str) -> Refusal:
    return Refusal(
        "loop-list",
        f"loop variable {variable.at} ('{variable.arg.node.name}') is a TensorList that is not "
        f"read or written once a step at the step's index: {why}",
    )
