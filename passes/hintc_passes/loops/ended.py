"""What `raw_rnn` carries: which rows have ended, and the input that it read one step ahead.

The flags ``ended[b]`` start as ``0 >= lengths[b]`` and become ``ended[b] or t + 1 >= lengths[b]``,
so before step t they are ``t >= lengths[b]``. The loop goes on until all rows have ended, which is
max(lengths) steps. The next input is read as ``ended everywhere ? zeros : x[t + 1]``, so in every
step that the loop makes it is ``x[t]``.

Flags that are the same for all rows need no lengths. As the loop ends when all are true, none is in
any step that it makes, and it makes as many as there are until they become true. (A batch of no
rows, which ends at once, is not expected.)
"""

from __future__ import annotations

import numpy as np

from hintc.graphdef.emit import Emitter, known_array
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, FunctionRef, Graph, Module, Node, Port
from hintc.ir.opdefs import IF_OPS
from hintc_passes.analysis.values import known_int, readers, source_of
from hintc_passes.loops.bounds import upper_bounds
from hintc_passes.loops.linear import STEP, Linear
from hintc_passes.loops.uniform_flags import Forms, uniform_since
from hintc_passes.loops.while_loop import Role, Variable, WhileLoop

_FOLLOWING = Linear(1) + Linear.of(STEP)
"""The index of the next step."""


def understand(module: Module, loop: WhileLoop) -> list[Linear]:
    """Give all variables of a loop their roles; the numbers of steps that it may not exceed.

    Raises:
        Refused: something in it has no place in a Scan.
    """
    for variable in loop.with_role(Role.STATE):
        if variable.arg.node.attributes.get("T") is DType.BOOL:
            _find_flags(loop, variable)
            _find_uniform(module, loop, variable)
    for variable in loop.with_role(Role.STATE):
        _find_ahead(module, loop, variable)
    condition = loop.cond.results[0].operands[0]
    # what stops by data is told so before what it does to lists
    limits = upper_bounds(condition, loop.form, lambda p: _steps_until_all_ended(loop, p))
    loop.give_list_roles()
    return limits


def _steps_until_all_ended(loop: WhileLoop, condition: Port) -> Linear | None:
    """The number of steps while ``not all(ended)``; None if the condition is something else."""
    node = source_of(condition).node
    if node.op != "LogicalNot":
        return None
    everywhere = node.operands[0]
    variable = loop.variable_of(_flags(everywhere))
    if variable is None or variable.role is not Role.ENDED:
        return None
    if variable.of is None:
        return Linear.of(STEP) - variable.counts
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


def _find_uniform(module: Module, loop: WhileLoop, variable: Variable) -> None:
    """Give flags that are the same for all rows their role.

    They are false in every step, because the loop's condition asks for that. Only what picks
    values by them may read them.
    """
    if variable.role is not Role.STATE or readers(loop.graph, Port(loop.node, variable.at)):
        return
    if not _ends_with(loop, variable, loop.cond.results[0].operands[0]):
        return
    if 0 in (loop.shapes[variable.first].dims or ()):
        return
    following = uniform_since(variable.next, loop.form, {variable.arg: False})
    if not isinstance(following, Linear) or following.factor(STEP) != 1:
        return
    steps = _FOLLOWING - following
    first = uniform_since(variable.first, _forms_outside(module, loop), {})
    if first is False and steps.is_constant:
        steps = Linear(max(steps.constant, 1))
    elif first != -steps:
        return
    picks = [(n.op, at) for n, at in readers(loop.body, variable.arg) if n.op != "LogicalOr"]
    if all(pick == ("Select", 0) for pick in picks):
        variable.role, variable.counts = Role.ENDED, Linear.of(STEP) - steps


def _ends_with(loop: WhileLoop, variable: Variable, condition: Port) -> bool:
    """True if the loop goes on only while not all of these flags are true."""
    node = source_of(condition).node
    if node.op == "LogicalAnd":
        return any(_ends_with(loop, variable, p) for p in node.operands)
    return node.op == "LogicalNot" and loop.variable_of(_flags(node.operands[0])) is variable


def _forms_outside(module: Module, loop: WhileLoop) -> Forms:
    def form(port: Port) -> Linear | None:
        is_scalar = infer_shapes(module, loop.graph, [port])[port].rank == 0
        return loop.sizes.form(port) if is_scalar else None

    return form


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
    inside, before = variable.next, source_of(variable.first)
    steps: Linear | None = None
    read = first = None
    if _both_read_until_ended(loop, inside.node, before.node):
        read, first = _read(module, inside.node, inside), _read(module, before.node, before)
    else:
        for ended in loop.with_role(Role.ENDED):
            if ended.of is None:
                steps = Linear.of(STEP) - ended.counts
                read = _read_unless(module, inside, loop.form, steps, _FOLLOWING)
                first = _read_unless(module, before, _forms_outside(module, loop), steps, Linear())
    if read is None or first is None:
        return
    rows = loop.variable_of(read[0])
    if rows is None or source_of(rows.first) != first[0]:
        return
    if _is_row(read[1], _FOLLOWING, loop.form, steps) and _is_row(
        first[1], Linear(), _forms_outside(module, loop), steps
    ):
        variable.role, variable.of = Role.AHEAD, rows
        loop.ahead.append(inside.node)


def _both_read_until_ended(loop: WhileLoop, inside: Node, before: Node) -> bool:
    """True for conditions whether all lengths are reached, with the next step and the first."""
    if inside.op not in IF_OPS or before.op not in IF_OPS:
        return False
    conditions = inside.operands[0], before.operands[0]
    found = _ended_at(loop, _flags(conditions[0]))
    lengths = _lengths_at_first(loop, _flags(conditions[1]))
    if found is None or lengths is None:
        return False
    if found[0].first != lengths.first or found[1] != _FOLLOWING:
        return False
    rank = loop.shapes[lengths.first].rank
    return rank is not None and all(_takes_all(condition, rank) for condition in conditions)


def _read_unless(
    module: Module, value: Port, form: Forms, steps: Linear, at: Linear
) -> tuple[Port, Port] | None:
    """(list, index) of the element that a value is, if need be only where ``at < steps``."""
    node = value.node
    if node.op == "TensorListGetItem":
        alone = all(reader.op == "_Retval" for reader, _ in readers(node.graph, value))
        if at == _FOLLOWING and not alone:
            return None
        return source_of(node.operands[0]), node.operands[1]
    if node.op not in IF_OPS:
        return None
    since = uniform_since(_flags(node.operands[0]), form, {})
    return _read(module, node, value) if since is False or since == at - steps else None


def _is_row(index: Port, row: Linear, form: Forms, steps: Linear | None) -> bool:
    """True if an index is `row`, or ``min(row, last)`` of which the steps do not reach `last`."""
    if form(index) == row:
        return True
    node = source_of(index).node
    if node.op != "Minimum" or steps is None:
        return False
    for one, other in (node.operands, node.operands[::-1]):
        last = form(other)
        if last is not None and form(one) == row:
            beyond = last - steps + Linear(1)
            return beyond.is_constant and beyond.constant >= 0
    return False


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
