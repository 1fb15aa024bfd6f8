"""What a GraphDef holds, in numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hintc.ops import PREFIX

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def count_ops(graph_def: Any) -> dict[str, int]:
    """How often each op occurs, in the main graph and in function bodies, the commonest first."""
    counts = Counter(node.op for node in graph_def.node)
    for function in graph_def.library.function:
        counts.update(node.op for node in function.node_def)
    return dict(counts.most_common())


def count_fused_ops(graph_def: Any) -> dict[str, int]:
    """How often each fused op is called, in the main graph and in function bodies."""
    fused = {
        function.signature.name: function.attr["_implements"].func.name.removeprefix(PREFIX)
        for function in graph_def.library.function
        if "_implements" in function.attr
        and function.attr["_implements"].func.name.startswith(PREFIX)
    }
    bodies = [f.node_def for f in graph_def.library.function if f.signature.name not in fused]
    called = [
        node.attr["f"].func.name
        for nodes in (graph_def.node, *bodies)
        for node in nodes
        if node.op in _CALLS
    ]
    return dict(Counter(fused[name] for name in called if name in fused).most_common())
