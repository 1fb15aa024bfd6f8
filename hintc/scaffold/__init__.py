"""Folders to start from: a kernel in C, a plug-in with a pass."""

from hintc.scaffold.op_kernel import new_op
from hintc.scaffold.pass_package import new_pass

__all__ = ["new_op", "new_pass"]
