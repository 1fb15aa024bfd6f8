"""Sources: every form in which people have a model, read into one frozen graph."""

from hintc.source.model import SourceModel
from hintc.source.read import read_source

__all__ = ["SourceModel", "read_source"]
