"""Folders to start from: a kernel in C. Templates lie beside this file."""

from hintc.scaffold.folder import write_folder
from hintc.scaffold.op import new_op

__all__ = ["new_op", "write_folder"]
