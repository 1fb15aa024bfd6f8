"""Loops and conditions of control flow v1, and the regions in which their nodes run.

A region is a place that is alive or dead as a whole. Regions form a tree.
Source: TensorFlow, "Implementation of Control Flow in TensorFlow", 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hintc.ir import Graph, Node, Port
from hintc.remark import Refused

SWITCHES = ("Switch", "RefSwitch")
ENTERS = ("Enter", "RefEnter")
_REMEDY = "Freeze the graph again from the code that made it, or leave this part out."


class Construct:
    """A loop or the conditions on one predicate at one place.

    Attributes:
        trouble: why it stays as it is; None while nothing speaks against it.
        members: the nodes that run inside.
    """

    def __init__(self, parent: Region) -> None:
        self.parent = parent
        self.trouble: Refused | None = None
        self.members: dict[Node, None] = {}

    @property
    def name(self) -> str:
        """What a remark is about."""
        raise NotImplementedError

    def blame(self, node: Node, reason: str, code: str = "frame-malformed") -> None:
        """Note that the construct stays, unless that is known already."""
        if self.trouble is None:
            self.trouble = Refused(code, f"'{node.name}' {reason}", _REMEDY)


class Region:
    """A place in the tree.

    Attributes:
        parent: the place around it; None for the graph itself.
        construct: the loop or condition that it is a part of.
        loop: the innermost loop around.
    """

    def __init__(self, parent: Region | None, construct: Construct | None = None) -> None:
        self.parent = parent
        self.construct = construct
        self._loop = construct if isinstance(construct, Loop) else None

    @property
    def loop(self) -> Loop | None:
        """The innermost loop around."""
        if self._loop is not None or self.parent is None:
            return self._loop
        return self.parent.loop

    def chain(self) -> Iterator[Region]:
        """This region and those around it, from the inside out."""
        region: Region | None = self
        while region is not None:
            yield region
            region = region.parent

    def is_in(self, other: Region) -> bool:
        """True if `other` is this region or around it."""
        return any(region is other for region in self.chain())


class Loop(Construct):
    """The nodes of a frame.

    Attributes:
        frame: its name.
        enters: what comes in.
        variables: for each Merge, its Enter and its NextIteration.
        switches: for each Switch on the loop's condition, the Merge that it reads.
        exits: the Exit nodes.
        conditions: the LoopCond nodes; a loop has one.
        check: where the condition is computed.
        step: where the body runs.
        after: what only an Exit may read.
    """

    def __init__(self, name: str, root: Region) -> None:
        super().__init__(root)
        self.frame = name
        self.enters: list[Node] = []
        self.variables: dict[Node, tuple[Node, Node]] = {}
        self.switches: dict[Node, Node] = {}
        self.exits: list[Node] = []
        self.conditions: list[Node] = []
        self.check = Region(root, self)
        self.step = Region(self.check, self)
        self.after = Region(self.check, self)
        self.waiting: list[Node] = []
        self.open = 0

    @property
    def name(self) -> str:
        """The frame's name, as the loop is called in TensorFlow 2."""
        return self.frame.removesuffix("/while_context")


class Condition(Construct):
    """All that depends on one predicate at one place.

    Attributes:
        predicate: the value that decides.
        branches: where the nodes run that need it False, and True.
        switches: the Switch nodes.
        merges: the Merge nodes, by level: those of one level do not depend on each other.
    """

    def __init__(self, parent: Region, predicate: Port) -> None:
        super().__init__(parent)
        self.predicate = predicate
        self.branches = (Region(parent, self), Region(parent, self))
        self.switches: list[Node] = []
        self.merges: dict[int, list[Node]] = {}

    @property
    def name(self) -> str:
        """The scope of its first Merge."""
        first = next((m for merges in self.merges.values() for m in merges), self.switches[0])
        return first.name.rpartition("/")[0] or first.name


@dataclass
class Regions:
    """What is found out about a graph.

    Attributes:
        of: the region of each node.
        loops: by name of the frame.
        conditions: by place and predicate.
        acting: nodes with side effects and those that come after one.
        order: each node after what it reads.
        stuck: a node on a cycle that no loop explains; then nothing else counts.
    """

    graph: Graph
    root: Region = field(default_factory=lambda: Region(None))
    of: dict[Node, Region] = field(default_factory=dict)
    loops: dict[str, Loop] = field(default_factory=dict)
    conditions: dict[tuple[Region, Port], Condition] = field(default_factory=dict)
    acting: set[Node] = field(default_factory=set)
    order: list[Node] = field(default_factory=list)
    stuck: Node | None = None

    def place(self, node: Node, region: Region) -> None:
        """Say where a node runs."""
        self.of[node] = region
        if region.construct is not None:
            region.construct.members[node] = None

    def forget(self, node: Node) -> None:
        """Say that a node is gone."""
        region = self.of.pop(node)
        if region.construct is not None:
            region.construct.members.pop(node, None)

    def constructs(self) -> list[Construct]:
        """Loops and conditions, inner ones first."""
        found = [*self.loops.values(), *self.conditions.values()]
        return sorted(found, key=lambda c: -sum(1 for _ in c.parent.chain()))
