"""Passes for the tests of the command line: they fuse, refuse, rename, fail, err and break."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from hintc.errors import HintcError
from hintc.ir import Module
from hintc.registry import isolated, register
from hintc.remark import PassReport
from hintc.rewrite import Pass


@contextmanager
def own_passes() -> Iterator[None]:
    """Within it only these passes are known."""
    with isolated():

        @register
        @dataclass(frozen=True)
        class Fuse(Pass):
            """Says that it fused something.

            More about it.
            """

            name: ClassVar[str] = "fuse-y"
            gain: float = 1.5

            def run(self, module: Module) -> PassReport:
                report = PassReport()
                report.fused("y", "y", "y is fused now")
                return report

        @register
        class Refuse(Pass):
            """Refuses."""

            name: ClassVar[str] = "refuse-y"

            def run(self, module: Module) -> PassReport:
                report = PassReport()
                report.refused("y", "y", "y is too odd", "Make it even.")
                return report

        @register
        class Rename(Pass):
            """Changes the module: MatMul gets another name."""

            name: ClassVar[str] = "rename"

            def run(self, module: Module) -> PassReport:
                report = PassReport()
                node = module.graph.find("MatMul")
                if node is not None:
                    module.graph.rename(node, "product")
                    report.count("renamed")
                return report

        @register
        class Fail(Pass):
            """Fails."""

            name: ClassVar[str] = "fail"

            def run(self, module: Module) -> PassReport:
                raise HintcError("it does not work", node="y", remedy="Do not try.")

        @register
        class Wrong(Pass):
            """Makes the model compute something else."""

            name: ClassVar[str] = "wrong"

            def run(self, module: Module) -> PassReport:
                module.graph["y"].op = "Tanh"
                return PassReport({"changed": 1})

        @register
        class Spoil(Pass):
            """Leaves a broken module."""

            name: ClassVar[str] = "spoil"

            def run(self, module: Module) -> PassReport:
                module.graph["y"]._operands = ()
                return PassReport({"changed": 1})

        yield
