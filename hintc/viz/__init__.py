"""Pictures of modules: DOT, SVG, and an instrument that dumps them between passes."""

from hintc.viz.dot import to_dot
from hintc.viz.dump import Dump
from hintc.viz.svg import Rendering, render

__all__ = ["Dump", "Rendering", "render", "to_dot"]
