"""How often a loop runs: its condition as a set of upper bounds, and what that set reduces to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hintc.ir import Port, Shape
from hintc.remark import Refused
from hintc_passes.analysis.dimensions import dimension
from hintc_passes.analysis.values import dimension_of, source_of
from hintc_passes.loops.linear import STEP, Atom, Linear, linear

_COMPARISONS = {
    "Less": (0, 1, 0),
    "LessEqual": (0, 1, 1),
    "Greater": (1, 0, 0),
    "GreaterEqual": (1, 0, 1),
}
"""Op -> (operand that is less, operand that is greater, 1 if they may be equal)."""
_REMEDY = "A loop becomes a Scan if it counts in equal steps up or down to a fixed bound."


class Sizes:
    """Integer scalars outside a loop as linear forms of dimensions and other values.

    Args:
        shapes: static shapes of values whose dimensions occur.
    """

    def __init__(self, shapes: Mapping[Port, Shape]) -> None:
        self._shapes = shapes
        self.ports: dict[Atom, Port] = {}
        """The value that each atom is."""

    def form(self, port: Port) -> Linear:
        """A value as a linear form."""
        found = linear(port, self._leaf)
        assert found is not None
        return found

    def length(self, of: Port, axis: int = 0) -> Linear:
        """A dimension of a value."""
        of = source_of(of)
        dims = self._shapes.get(of, Shape(None)).dims
        if dims and axis < len(dims) and dims[axis] >= 0:
            return Linear(dims[axis])
        return self.symbol(of, axis)

    def symbol(self, of: Port, axis: int = 0) -> Linear:
        """A dimension of a value, without what shape inference knows of it."""
        found = dimension(of, axis)
        return Linear(found) if isinstance(found, int) else Linear.of(("dimension", found))

    def _leaf(self, port: Port) -> Linear:
        of = dimension_of(port)
        form = Linear.of(("value", port)) if of is None else self.length(*of)
        for atom in form.terms:
            self.ports.setdefault(atom, port)
        return form


def upper_bounds(
    condition: Port,
    form: Callable[[Port], Linear | None],
    until: Callable[[Port], Linear | None],
) -> list[Linear]:
    """Numbers of steps, none of which the loop may exceed.

    Args:
        condition: the result of the condition function.
        form: a value of the condition in terms of the step and of values outside the loop.
        until: the number of steps for which a condition holds that compares no numbers.

    Raises:
        Refused: the condition is not a conjunction of bounds for something that counts.
    """
    node = source_of(condition).node
    if node.op == "LogicalAnd":
        return [bound for p in node.operands for bound in upper_bounds(p, form, until)]
    if node.op in _COMPARISONS:
        less, greater, equal = _COMPARISONS[node.op]
        low, high = form(node.operands[less]), form(node.operands[greater])
        if low is not None and high is not None:
            room = high - low + Linear(equal)
            stride, rest = -room.factor(STEP), room.without(STEP)
            if stride == 1:
                return [rest]
            if stride > 1 and rest.is_constant:
                return [Linear(-(-rest.constant // stride))]
    steps = until(source_of(condition))
    if steps is not None:
        return [steps]
    raise Refused(
        "loop-condition",
        f"the loop goes on while a {node.op} holds that is not index < bound",
        _REMEDY,
    )


class Bounds:
    """The least of some bounds, symbolically.

    Args:
        forms: the bounds.
        sizes: reads values outside the loop.
    """

    def __init__(self, forms: Sequence[Linear], sizes: Sizes) -> None:
        self._sizes = sizes
        self._forms: list[Linear] = []
        self._larger: list[Port] = []
        for form in forms:
            self._take(form)
        self.open = [m for m in self._larger if not self._absorbed(m)]
        """``Maximum`` bounds that no other bound makes redundant."""

    def _take(self, form: Linear) -> None:
        node = self._single(form)
        if node is not None and node.node.op == "Minimum":
            for operand in node.node.operands:
                self._take(self._sizes.form(operand))
        elif node is not None and node.node.op == "Maximum":
            self._larger.append(node)
        elif form not in self._forms:
            self._forms.append(form)

    def _single(self, form: Linear) -> Port | None:
        """The value that the form is, if it is one value."""
        if form.constant or list(form.terms.values()) != [1]:
            return None
        (atom,) = form.terms
        return source_of(self._sizes.ports[atom]) if atom[0] == "value" else None

    def _absorbed(self, maximum: Port) -> bool:
        """``min(a, max(a, b)) == a``."""
        return any(self._sizes.form(p) in self._forms for p in maximum.node.operands)

    def least(self) -> Linear | None:
        """The one form that all bounds reduce to, leaving `open` aside; None if there are more."""
        constants = [form for form in self._forms if form.is_constant]
        others = [form for form in self._forms if not form.is_constant]
        if others:
            comparable = all(form.terms == others[0].terms for form in others)
            if constants or not comparable:
                return None
            return min(others, key=lambda form: form.constant)
        return min(constants, key=lambda form: form.constant, default=None)
