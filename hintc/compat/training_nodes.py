"""`remove_training_nodes` with the name it always had, keeping hints and the function library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hintc.errors import HintError
from hintc.graphdef import lift, lower
from hintc.pipeline import PassPipeline


def remove_training_nodes(input_graph: Any, protected_nodes: Iterable[str] | None = None) -> Any:
    """Take out of a GraphDef what only training, or checking, needs.

    Identities, CheckNumerics, StopGradient, PreventGradient, dropout of rate 0 and assertions, as
    the pass ``remove-training-nodes`` does. Unlike TensorFlow's own it keeps hints, stubs with
    their bodies, and the function library, and looks into functions.

    Args:
        input_graph: a GraphDef; it is not changed.
        protected_nodes: names of nodes that stay. What nobody reads stays too.

    Returns:
        A new GraphDef.

    Raises:
        HintError: `protected_nodes` is one name, not several (also a ValueError).
        HintcError: it is no GraphDef, or a damaged one.
    """
    if isinstance(protected_nodes, str | bytes):
        raise HintError(
            f"remove_training_nodes: protected_nodes is the name {protected_nodes!r}",
            remedy="Pass a list of names",
        )
    protected = tuple(str(name) for name in protected_nodes or ())
    module = lift(input_graph)
    pipeline = PassPipeline.parse("remove-training-nodes").set_options(
        "remove-training-nodes", protected=protected
    )
    pipeline.run(module, verify_each=False)
    return lower(module)
