"""Why something is left as it is."""

from __future__ import annotations


class Refusal(Exception):
    """Raised inside a recurrence pass, which turns it into a remark.

    Args:
        code: stable short name of the reason.
        reason: one sentence.
        remedy: what the user can do, "" if nothing.
    """

    def __init__(self, code: str, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason, self.remedy = code, reason, remedy
