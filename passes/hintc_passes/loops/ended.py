"""What `raw_rnn` carries: which rows have ended, and the input that it read one step ahead.

The flags ``ended[b]`` start as ``0 >= lengths[b]`` and become ``ended[b] or t + 1 >= lengths[b]``,
so before step t they are ``t >= lengths[b]``. The loop goes on until all rows have ended, which is
max(lengths) steps. The next input is read as ``ended everywhere ? zeros : x[t + 1]``, so in every
step that the loop makes it is ``x[t]``.
"""

from __future__ import annotations

import numpy as np

from hintc.graphdef.emit import Emitter, known_array
from hintc.ir import DType, FunctionRef, Graph, Module, Node, Port
from hintc.ir.opdefs import IF_OPS
from hintc_passes.analysis.values import known_int, readers, source_of
from hintc_passes.loops.bounds import upper_bounds
from hintc_passes.loops.linear import STEP, Linear
from hintc_passes.loops.while_loop import Role, Variable, WhileLoop

_FOLLOWING = Linear(1) + Linear.of(STEP)
"""The index of the next step."""


def understand(module: Module, loop: WhileLoop) -> list[Linear]:
    """Give all variables of a loop their roles; the numbers of steps that it may not exceed.

    Raises:
        Refused: something in it has no place in a Scan.
    """
    _find_ended(module, loop)
    condition = loop.cond.results[0].operands[0]
    # what stops by data is told so before what it does to lists
    limits = upper_bounds(condition, loop.form, lambda p: _steps_until_all_ended(loop, p))
    loop.give_list_roles()
    return limits


def _find_ended(module: Module, loop: WhileLoop) -> None:
    for variable in loop.with_role(Role.STATE):
        if variable.arg.node.attributes.get("T") is DType.BOOL:
            _find_flags(loop, variable)
    for variable in loop.with_role(Role.STATE):
        _find_ahead(module, loop, variable)


def _steps_until_all_ended(loop: WhileLoop, condition: Port) -> Linear | None:
    """The number of steps while ``not all(ended)``; None if the condition is something else."""
    node = source_of(condition).node
    if node.op != "LogicalNot":
        return None
    everywhere = node.operands[0]
    variable = loop.variable_of(_flags(everywhere))
    if variable is None or variable.role is not Role.ENDED or variable.of is None:
        return None
    rank = loop.shapes[variable.of.first].rank
    if rank is None or not _takes_all(everywhere, rank):
        return None
    emit = Emitter(loop.graph, f"{loop.node.name}/bound", loop.node.origin)
    longest = variable.of.first
    if rank:
        axes = emit.constant(np.arange(rank, dtype=np.int32), "axes")
        attributes = {"T": DType.INT32, "Tidx": DType.INT32, "keep_dims": False}
        longest = emit.node("Max", [longest, axes], {**attributes}, "longest")
        loop.hoisted.append(longest.node)
        loop.hoisted.append(axes.node)
    return loop.sizes.form(longest)


def _flags(condition: Port) -> Port:
    """What a condition takes together, or is."""
    node = source_of(condition).node
    return source_of(node.operands[0]) if node.op == "All" else source_of(condition)


def _takes_all(condition: Port, rank: int) -> bool:
    """True if a condition says whether all of its flags, of this rank, are true."""
    node = source_of(condition).node
    if node.op != "All":
        return rank == 0
    axes = known_array(node.operands[1])
    if axes is None or node.attributes.get("keep_dims"):
        return False
    return {int(a) % rank for a in axes.reshape(-1)} == set(range(rank)) if rank else True


def _ended_at(loop: WhileLoop, port: Port) -> tuple[Variable, Linear] | None:
    """(lengths, t) if the value is ``t >= lengths``, of several joined by Or the last t."""
    port = source_of(port)
    variable = loop.variable_of(port)
    if variable is not None and variable.role is Role.ENDED and variable.of is not None:
        return variable.of, Linear.of(STEP)
    node = port.node
    if node.op == "LogicalOr":
        found = [_ended_at(loop, p) for p in node.operands]
        if found[0] is None or found[1] is None or found[0][0] is not found[1][0]:
            return None
        apart = found[1][1] - found[0][1]
        if not apart.is_constant:
            return None
        return found[1] if apart.constant >= 0 else found[0]
    if node.op in ("GreaterEqual", "LessEqual"):
        high, low = node.operands if node.op == "GreaterEqual" else reversed(node.operands)
        at, lengths = loop.form(high), loop.variable_of(source_of(low))
        if at is not None and lengths is not None and lengths.role is Role.INVARIANT:
            return lengths, at
    return None


def _find_flags(loop: WhileLoop, variable: Variable) -> None:
    lengths = _lengths_at_first(loop, variable.first)
    if lengths is None:
        return
    variable.role, variable.of = Role.ENDED, lengths
    found = _ended_at(loop, variable.next)
    if found is None or found[0].first != lengths.first or found[1] != _FOLLOWING:
        variable.role, variable.of = Role.STATE, None


def _lengths_at_first(loop: WhileLoop, first: Port) -> Variable | None:
    """`lengths` if the value before the loop is ``0 >= lengths``."""
    node = source_of(first).node
    if node.op not in ("GreaterEqual", "LessEqual"):
        return None
    high, low = node.operands if node.op == "GreaterEqual" else reversed(node.operands)
    if known_int(high) != 0:
        return None
    for variable in loop.with_role(Role.INVARIANT):
        is_int = variable.arg.node.attributes.get("T") is DType.INT32
        if is_int and source_of(variable.first) == source_of(low):
            return variable
    return None


def _find_ahead(module: Module, loop: WhileLoop, variable: Variable) -> None:
    if readers(loop.graph, Port(loop.node, variable.at)):
        return
    inside, before = variable.next.node, source_of(variable.first).node
    if inside.op not in IF_OPS or before.op not in IF_OPS:
        return
    conditions = inside.operands[0], before.operands[0]
    found = _ended_at(loop, _flags(conditions[0]))
    lengths = _lengths_at_first(loop, _flags(conditions[1]))
    if found is None or lengths is None:
        return
    if found[0].first != lengths.first or found[1] != _FOLLOWING:
        return
    rank = loop.shapes[lengths.first].rank
    if rank is None or not all(_takes_all(condition, rank) for condition in conditions):
        return
    read, first = _read(module, inside, variable.next), _read(module, before, variable.first)
    if read is None or first is None:
        return
    rows = loop.variable_of(read[0])
    same = rows is not None and source_of(rows.first) == first[0]
    ahead = loop.form(read[1]) == _FOLLOWING
    if rows is not None and same and ahead and known_int(first[1]) == 0:
        variable.role, variable.of = Role.AHEAD, rows
        loop.ahead.append(inside)


def _read(module: Module, node: Node, result: Port) -> tuple[Port, Port] | None:
    """(list, index), outside the If, of the element that its else branch reads."""
    branch = node.attributes.get("else_branch")
    if not isinstance(branch, FunctionRef):
        return None
    graph = module.function(branch.name, node=node).graph
    item = source_of(graph.results[source_of(result).index].operands[0]).node
    if item.op != "TensorListGetItem":
        return None
    operands = [_given(graph, node, p) for p in item.operands[:2]]
    if operands[0] is None or operands[1] is None:
        return None
    return operands[0], operands[1]


def _given(graph: Graph, node: Node, port: Port) -> Port | None:
    """The operand of the If that an argument of its branch is; a constant as it is."""
    port = source_of(port)
    if port.node in graph.args:
        return source_of(node.operands[1 + graph.args.index(port.node)])
    return port if port.node.op == "Const" else None
