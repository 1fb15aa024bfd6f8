"""A TensorFlow 1 Session, frozen: its variables' values become constants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hintc.errors import HintcError
from hintc.graphdef import lift
from hintc.near import some
from hintc.source.assignments import assigns, without_assignments
from hintc.source.endpoints import find_port, guess_outputs
from hintc.source.model import SourceModel
from hintc.source.quiet import quiet

_FROZEN, _NUMBER = re.compile(r"_frozen_\d+$"), re.compile(r"_\d+$")
"""How TensorFlow ends the names of functions after freezing, and before."""
_UNINITIALISED = re.compile(r"(?:find variable|uninitialized value) (\S+)")


def freeze_session(session: Any, outputs: Sequence[str] | None) -> SourceModel:
    """The graph of a session with constants for variables, cut to its outputs.

    Results of hinted calls are kept too, whether the outputs need them or not. Assignments that
    the outputs do not show go.

    Args:
        session: a `tf.compat.v1.Session` whose variables have values.
        outputs: tensor names, or None to guess.

    Returns:
        The frozen graph and the outputs; no inputs are named.

    Raises:
        HintcError: outputs that are not there or not clear, variables without a value, or state
            that cannot be frozen.
    """
    import tensorflow as tf

    from hintc.authoring.find_outputs import find_all_hinted_output_nodes

    graph_def = session.graph.as_graph_def(add_shapes=False)
    graph = lift(graph_def).graph
    names = tuple(outputs) if outputs is not None else guess_outputs(graph)
    nodes = [find_port(graph, name, "output").node.name for name in names]
    kept = list(dict.fromkeys([*nodes, *find_all_hinted_output_nodes(graph_def=graph_def)]))
    graph_def = tf.compat.v1.graph_util.extract_sub_graph(graph_def, kept)
    carried: list[str] = []
    if assigns(graph_def):
        graph_def, carried = without_assignments(graph_def, [*names, *kept])
    try:
        with quiet():
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
                session, graph_def, kept
            )
    except tf.errors.FailedPreconditionError as error:
        raise HintcError(
            "a variable of the session has no value",
            node=_variable_in(str(error.message)),
            remedy="Run the initialisers, or restore a checkpoint, before converting.",
        ) from error
    except (ValueError, TypeError, RuntimeError, KeyError, tf.errors.OpError) as error:
        raise HintcError(
            f"the session cannot be frozen for {some(nodes)}", why=_first_line(str(error))
        ) from error
    _name_frozen_functions(frozen)
    return SourceModel(frozen, (), names, description="Session", carried=tuple(carried))


def _name_frozen_functions(graph_def: Any) -> None:
    """Let loops and conditions name the functions that TensorFlow has renamed.

    Freezing makes ``body_frozen_7`` of a function ``body_3`` that is handed variables, and forgets
    to say so to a While or If inside of a function. Where several could be meant, the graph stays
    as it is, and is refused later.
    """
    functions = {f.signature.name for f in graph_def.library.function}
    bodies = [graph_def.node, *(f.node_def for f in graph_def.library.function)]
    named = [at.func for body in bodies for node in body for at in node.attr.values()]
    called = {func.name for func in named} | {n.op for body in bodies for n in body}
    left: dict[str, list[str]] = {}
    for function in sorted(functions - called):
        if _FROZEN.search(function):
            left.setdefault(_FROZEN.sub("", function), []).append(function)
    lost: dict[str, set[str]] = {}
    for func in named:
        if func.name and func.name not in functions:
            lost.setdefault(_NUMBER.sub("", func.name), set()).add(func.name)
    for func in named:
        base = _NUMBER.sub("", func.name)
        if (
            len(lost.get(base, ())) == 1
            and len(left.get(base, ())) == 1
            and func.name in lost[base]
        ):
            func.name = left[base][0]


def _variable_in(message: str) -> str | None:
    """The variable that TensorFlow's message is about."""
    found = _UNINITIALISED.search(message)
    return found.group(1).rstrip(".") if found else None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:400] if lines else ""
