"""TensorFlow 2 functions, frozen: what they capture becomes constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hintc.errors import HintcError
from hintc.source.assignments import assigns, without_assignments
from hintc.source.endpoints import short_name
from hintc.source.model import SourceModel
from hintc.source.quiet import quiet


def freeze_function(function: Any, description: str = "ConcreteFunction") -> SourceModel:
    """A ConcreteFunction with constants for its variables; loops stay `While`.

    Assignments that its results do not show go.

    Args:
        function: a `tf.types.experimental.ConcreteFunction`.
        description: see `SourceModel`.

    Raises:
        HintcError: it captures something that cannot be frozen, e.g. a lookup table, or its
            results show an assignment of the same call.
    """
    reading, carried = _without_assignments(function)
    frozen = _freeze(reading, description)
    inputs = tuple(short_name(t.name) for t in frozen.inputs)
    outputs = tuple(short_name(t.name) for t in frozen.outputs)
    return SourceModel(
        frozen.graph.as_graph_def(),
        inputs,
        outputs,
        dict(zip(inputs, _argument_names(function, len(inputs)), strict=False)),
        dict(zip(outputs, _result_keys(function, len(outputs)), strict=False)),
        description,
        tuple(carried),
    )


def _without_assignments(function: Any) -> tuple[Any, list[str]]:
    """A function that assigns to no variable, and the names of those that it carries over."""
    graph_def = function.graph.as_graph_def()
    if not assigns(graph_def):
        return function, []
    names = [t.name for t in function.outputs]
    called = {id(v.handle): getattr(v, "path", v.name) for v in function.graph.variables}
    variables = {
        inner.op.name: called[id(outer)].partition(":")[0]
        for outer, inner in function.graph.captures
        if id(outer) in called
    }
    pruned, carried = without_assignments(graph_def, [short_name(n) for n in names], variables)
    if pruned is graph_def:
        return function, []
    return _imported(function, pruned, names), carried


def _imported(function: Any, graph_def: Any, outputs: Sequence[str]) -> Any:
    """A ConcreteFunction of another graph, with the inputs and variables of `function`."""
    import tensorflow as tf

    captures = function.graph.captures
    names = {inner.name for _, inner in captures}
    given = [t for t in function.inputs if t.name not in names]

    def call(*args: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        for variable in function.graph.variables:
            graph.watch_variable(variable)  # freezing looks for the watched ones
        values = {t.name: arg for t, arg in zip(given, args, strict=True)}
        values |= {inner.name: graph.capture(outer) for outer, inner in captures}
        return tf.graph_util.import_graph_def(
            graph_def, values, return_elements=list(outputs), name=""
        )

    specs = [tf.TensorSpec(t.shape, t.dtype, t.op.name) for t in given]
    return tf.function(call, autograph=False).get_concrete_function(*specs)


def _freeze(function: Any, description: str) -> Any:
    """`function` with constants for what it captures.

    Raises:
        HintcError: TensorFlow cannot, or something is left.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    try:
        with quiet():
            # aggressive_inlining stays off: it would dissolve functions that carry meaning.
            frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    except (ValueError, TypeError, RuntimeError, KeyError, tf.errors.OpError) as error:
        if not tf.compat.v1.executing_eagerly_outside_functions():
            raise HintcError(
                f"the {description} cannot be frozen while eager execution is off",
                why="the values of its variables are in a session",
                remedy="Pass the Session (of tf.compat.v1.keras.backend.get_session(), for a "
                "Keras model) with inputs= and outputs=.",
            ) from error
        raise HintcError(
            f"the {description} cannot be frozen",
            why=" ".join(str(error).split())[:400],
            remedy="Does it assign to variables, or keep state? Give hintc the inference "
            "function only.",
        ) from error
    captured = [t.name for t in frozen.inputs if t.dtype in (tf.resource, tf.variant)]
    if captured:
        raise HintcError(
            f"the {description} cannot be frozen",
            node=captured[0],
            why=f"it still needs {len(captured)} resources, e.g. a table or a variable",
            remedy="Leave that part out of the function.",
        )
    return frozen


def _argument_names(function: Any, count: int) -> Sequence[str]:
    """The user's names of the tensor arguments, () if they cannot be told apart."""
    import tensorflow as tf

    specs = [
        spec
        for spec in tf.nest.flatten(function.structured_input_signature)
        if isinstance(spec, tf.TypeSpec)
    ]
    names = [getattr(spec, "name", None) for spec in specs]
    if len(names) != count or not all(names):
        return ()
    return [str(name) for name in names]


def _result_keys(function: Any, count: int) -> Sequence[str]:
    """The keys of a dict of results, in the order of the function's outputs; else ()."""
    structure = function.structured_outputs
    if isinstance(structure, Mapping) and len(structure) == count:
        return sorted(str(key) for key in structure)
    return ()


def concrete_function(function: Any) -> Any:
    """The one ConcreteFunction of a `tf.function`.

    Raises:
        HintcError: it has no input signature, or tracing it failed.
    """
    name = getattr(function, "name", None) or getattr(function, "__name__", "tf.function")
    if getattr(function, "input_signature", None) is None:
        raise HintcError(
            f"the tf.function '{name}' has no input signature",
            why="it could be traced for any shape and type",
            remedy="Give it input_signature=[tf.TensorSpec(...), ...], or pass what "
            "get_concrete_function(tf.TensorSpec(...), ...) returns.",
        )
    return trace(function, (), f"tf.function '{name}'")


def trace(function: Any, specs: Sequence[Any], description: str) -> Any:
    """`function.get_concrete_function(*specs)`.

    Raises:
        HintcError: the user's function raised.
    """
    try:
        with quiet():
            return function.get_concrete_function(*specs)
    except Exception as error:
        raise HintcError(
            f"the {description} cannot be traced",
            why=f"{type(error).__name__}: " + " ".join(str(error).split())[:400],
        ) from error
