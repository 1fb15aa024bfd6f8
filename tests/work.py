"""How much work something does, counted and not timed: the same on every machine."""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, cast


def calls_made(function: Callable[[], object]) -> int:
    """Number of Python and C functions called while `function` runs."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return cast(int, pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]  # not in typeshed


def instructions_run(function: Callable[[], object]) -> int:
    """Number of Python instructions run: sees loops that call nothing, which calls do not. Slow."""
    instructions = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal instructions
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        instructions += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return instructions
