"""Runs the probe of TFLite's layout against declarations that are wrong in one place each.

Prints a line for each: the structure, the field before which another one was put, and what came
of it: "refused", "crashed" or "accepted". Fields behind the last one that is ever used cannot
show; those of a structure passed or stored by value do.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from typing import Any

from hintc.runtime import abi_probe
from hintc.runtime import tflite_abi as abi

MODULE = "ai_edge_litert.interpreter"
STRUCTURES = ("Tensor", "Node", "Registration", "Context", "Delegate", "DelegateParams")


def with_another_field(structure: Any, at: int) -> Any:
    fields = list(structure._fields_)
    fields.insert(at, ("another", ctypes.c_void_p))
    return type(structure.__name__, (ctypes.Structure,), {"_fields_": fields})


def outcome(name: str, changed: Any) -> str:
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        setattr(abi, name, changed)
        try:
            abi_probe.probe(MODULE)
        except BaseException:  # noqa: BLE001 - whatever it is, the layout is refused
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    return "crashed" if os.WIFSIGNALED(status) else "refused" if status else "accepted"


if __name__ == "__main__":
    importlib.import_module(MODULE)
    for name in STRUCTURES:
        structure = getattr(abi, name)
        for at, (field, _) in enumerate(structure._fields_):
            sys.stdout.write(f"{name} {field} {outcome(name, with_another_field(structure, at))}\n")
            sys.stdout.flush()
