"""Why a hinted call is not fused."""

from __future__ import annotations


class NotFusedError(Exception):
    """Why a call is not fused: `str()` is a sentence; `remedy` what helps."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.code = code
        self.remedy = remedy
