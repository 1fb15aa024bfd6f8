"""set-forms: recurrences of some layers get the form that the user wants, whatever the others get.

It notes the wish on each Scan; choose-form follows it where it can, and says why where it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from hintc.call_graph import needed_graphs
from hintc.errors import HintcError
from hintc.ir import SCAN, Module, Scan
from hintc.meant import meant, meant_perhaps, path_of
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass


@register
@dataclass(frozen=True)
class SetForms(Pass):
    """Wish a form for the recurrences of single layers.

    Args:
        forms: pairs of a layer or node (see `hintc.meant.meant`) and a form, e.g.
            ``[[encoder,while],[decoder,fused]]``; a later pair overrides an earlier one.
    """

    name: ClassVar[str] = "set-forms"
    forms: tuple[tuple[str, Literal["auto", "fused", "unroll", "while"]], ...] = ()

    def run(self, module: Module) -> PassReport:
        """Note the forms on the Scans that the main graph reaches.

        Raises:
            HintcError: a name means no recurrence.
        """
        report = PassReport()
        if not self.forms:
            return report
        scans = [n for graph in needed_graphs(module) for n in graph.of_ops((SCAN,))]
        candidates = [(node, [path_of(node.name)]) for node in scans]
        for name, form in self.forms:
            those = meant(name, candidates)
            if not those:
                raise HintcError(
                    f"a form is given for '{name}', which is no recurrence",
                    remedy=meant_perhaps(name, candidates),
                )
            for node in those:
                scan = replace(Scan.of(node), form="" if form == "auto" else form)
                scan.write_to(module, node)
                report.count("set")
        return report
