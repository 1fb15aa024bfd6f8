"""The one family of errors hintc raises, and the exit status each maps to."""

from __future__ import annotations

from typing import ClassVar


class HintcError(Exception):
    """Something the user can act on: what went wrong, where, why, and what to do.

    Args:
        what: one clause that names the thing, e.g. ``"operand 1 does not exist"``.
        node: name of the graph node, if there is one.
        pass_name: name of the pass that was running, if there was one.
        why: the cause, where `what` does not already say it.
        remedy: what the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        node: str | None = None,
        pass_name: str | None = None,
        why: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.node = node
        self.pass_name = pass_name
        self.why = why
        self.remedy = remedy
        super().__init__(self._text())

    def _text(self) -> str:
        where = [f"pass '{self.pass_name}'"] if self.pass_name else []
        where += [f"node '{self.node}'"] if self.node else []
        text = f"{', '.join(where)}: {self.what}" if where else self.what
        if self.why:
            text += f" ({self.why})"
        if self.remedy:
            text += f". {self.remedy}"
        return text


class HintError(HintcError, ValueError):
    """Misuse of a hint. Also a ValueError, which is what TensorFlow's own hint API raises."""


class HintAttributeError(HintcError, AttributeError):
    """A hint on something that has no graph, e.g. an eager tensor (upstream: AttributeError)."""


class HintAssertionError(HintcError, AssertionError):
    """Wrong levels or mappings of a hint (upstream: AssertionError)."""


class HintRuntimeError(HintcError, RuntimeError):
    """A hinted call that the environment does not allow (upstream: RuntimeError)."""


class VerifyError(HintcError):
    """A module breaks a rule of the IR."""

    exit_code = 2


class EquivalenceError(HintcError):
    """Two models that must agree do not."""

    exit_code = 2


class NothingFusedError(HintcError):
    """Nothing was fused although the caller required it."""

    exit_code = 3
