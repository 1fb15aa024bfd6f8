"""From a source to a lowered GraphDef (`compile`) or to a .tflite model (`convert`)."""

from hintc.convert.check import TOLERANCES
from hintc.convert.drivers import compile as compile
from hintc.convert.drivers import convert
from hintc.convert.results import Compiled, Converted

__all__ = ["TOLERANCES", "Compiled", "Converted", "compile", "convert"]
