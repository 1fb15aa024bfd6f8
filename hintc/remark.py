"""What a pass says about a node: fused, refused because …, and what would help."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class RemarkKind(enum.Enum):
    """What happened."""

    FUSED = "fused"
    REFUSED = "refused"
    NOTE = "note"


@dataclass(frozen=True)
class Remark:
    """One thing worth knowing about what a pass did or did not do.

    Attributes:
        kind: what happened.
        code: stable short name of the reason, kebab-case, e.g. ``"cell-clip-differs"``.
        node: name of the node it is about, as the user knows it where possible.
        reason: one sentence.
        remedy: what the user can do, "" if nothing.
        pass_name: filled in by the pipeline.
    """

    kind: RemarkKind
    code: str
    node: str
    reason: str
    remedy: str = ""
    pass_name: str = ""

    def __str__(self) -> str:
        text = f"{self.kind.value}[{self.code}] {self.pass_name}: '{self.node}': {self.reason}"
        return f"{text.removesuffix('.')}. {self.remedy}" if self.remedy else text


@dataclass(frozen=True)
class NearMiss:
    """Where a pattern stopped fitting.

    Attributes:
        anchor: name of the node at which matching started.
        node: name of the node that differs.
        reason: the first thing that differed, on the attempt that came furthest.
        matched: how many operations fitted before.
    """

    anchor: str
    node: str
    reason: str
    matched: int


@dataclass
class PassReport:
    """Outcome of one pass.

    A pass changed the module exactly if some count is not zero.

    Attributes:
        counts: by what was counted.
        remarks: what it has to say, in order.
        near_misses: of a RewritePass: where the pattern began to fit (at least its anchor did).
    """

    counts: dict[str, int] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    near_misses: list[NearMiss] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """True if anything was counted."""
        return any(self.counts.values())

    def count(self, what: str, times: int = 1) -> None:
        """Count a change, e.g. ``count("fused")``."""
        self.counts[what] = self.counts.get(what, 0) + times

    def fused(self, code: str, node: str, reason: str) -> None:
        """Remark that something was fused."""
        self.remarks.append(Remark(RemarkKind.FUSED, code, node, reason))

    def refused(self, code: str, node: str, reason: str, remedy: str = "") -> None:
        """Remark that something was left alone, and why."""
        self.remarks.append(Remark(RemarkKind.REFUSED, code, node, reason, remedy))

    def note(self, code: str, node: str, reason: str, remedy: str = "") -> None:
        """Remark on something that is neither."""
        self.remarks.append(Remark(RemarkKind.NOTE, code, node, reason, remedy))


class Refused(Exception):
    """Why something that looks right is left alone: the pass makes a remark of it.

    Raised where a pass is deep inside its work, returned where it is asked (`RewritePass.accept`).

    Args:
        code: stable short name of the reason, kebab-case.
        reason: one sentence.
        remedy: what the user can do, "" if nothing.
    """

    def __init__(self, code: str, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason, self.remedy = code, reason, remedy
