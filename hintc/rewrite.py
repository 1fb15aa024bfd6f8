"""Pass: a named transformation of a module whose fields are its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.ir import Module
from hintc.remark import PassReport


@dataclass(frozen=True)
class Pass:
    """Base of all passes. Subclass it as a frozen dataclass; the fields are the options.

    Attributes:
        name: what the pass is called in pipelines; kebab-case.
    """

    name: ClassVar[str]

    def run(self, module: Module) -> PassReport:
        """Change the module in place and report.

        Raises:
            HintcError: the input is wrong; what the pass merely does not understand it leaves
                alone, with a remark.
        """
        raise NotImplementedError
