"""DOT → SVG or PNG, with the Graphviz of pygraphviz's wheel, else with a ``dot`` on the PATH."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

SECONDS = 20.0
"""Default limit for the time of a layout, in seconds."""

# In a process of its own: a layout cannot be interrupted otherwise.
_WITH_PYGRAPHVIZ = """
import sys, warnings, pygraphviz
warnings.simplefilter("ignore")
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog="dot"))
"""


@dataclass(frozen=True)
class Rendering:
    """What came out.

    Attributes:
        image: the picture; None if there is none.
        note: why there is none, "" if there is one.
    """

    image: bytes | None
    note: str = ""


def render(
    dot: str, *, image_format: Literal["svg", "png"] = "svg", seconds: float = SECONDS
) -> Rendering:
    """Lay a graph out and draw it.

    Args:
        dot: DOT source.
        image_format: ``"svg"`` or ``"png"``.
        seconds: how long the layout may take.

    Returns:
        The picture, or a note that says why there is none: no Graphviz, time over, or what
        Graphviz complained about. Never raises for these.
    """
    command = _command(image_format)
    if command is None:
        return Rendering(
            None, "no Graphviz found: install hintc[viz], or a Graphviz that is on the PATH"
        )
    try:
        done = subprocess.run(
            command, input=dot.encode(), capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Rendering(None, f"the layout took more than {seconds:g} s; the DOT file is whole")
    except OSError as error:
        return Rendering(None, f"Graphviz did not start: {error}")
    if done.returncode < 0:
        return Rendering(None, f"Graphviz crashed with signal {-done.returncode}")
    if done.returncode != 0 or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        return Rendering(None, f"Graphviz failed: {reason[-1] if reason else done.returncode}")
    return Rendering(done.stdout)


def _command(image_format: str) -> list[str] | None:
    if importlib.util.find_spec("pygraphviz") is not None:
        return [sys.executable, "-c", _WITH_PYGRAPHVIZ, image_format]
    found = shutil.which("dot")
    return [found, f"-T{image_format}"] if found is not None else None
