"""Is TFLite laid out as `hintc.runtime.tflite_abi` says, in the runtime that is about to be used?

A wrong layout reads wild memory. So a runtime whose version was not checked runs a model with known
answers in a process of its own first; only that process can die of it.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from importlib import metadata

from hintc.errors import HintcError

RUNTIMES = {
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "tensorflow.lite.python.interpreter": "tensorflow",
}
"""Module of an interpreter -> the distribution that it comes from."""
CHECKED = frozenset(
    {
        ("ai-edge-litert", "2.3.0", "Linux", "x86_64"),
        ("tensorflow", "2.21.0", "Linux", "x86_64"),
    }
)
"""Where the tests of hintc have run custom kernels: distribution, version, system, machine."""
SYSTEMS = ("Linux", "Darwin")
"""Where one C library serves everybody, so that TFLite can free what is allocated here."""
TIMEOUT = 120
"""Seconds for the probe; importing TensorFlow takes most of it."""

_PROBE = "from hintc.runtime.abi_probe import probe; probe({module!r})"


def check_runtime(module: str) -> None:
    """Makes sure that a delegate of ours fits this runtime; cheap after the first time.

    Args:
        module: what holds the interpreter. All known ones that are loaded if it is none of them.

    Raises:
        HintcError: the runtime's structures are not the ones that hintc knows.
    """
    for name in [module] if module in RUNTIMES else [m for m in RUNTIMES if m in sys.modules]:
        _check(name)


@functools.cache
def _check(module: str) -> None:
    if platform.system() not in SYSTEMS or sys.maxsize < 2**32:
        raise HintcError(
            f"custom kernels cannot run on {platform.system()} {platform.machine()}",
            why="TFLite's structures are known for 64-bit " + " and ".join(SYSTEMS),
        )
    distribution = RUNTIMES[module]
    version = _version(distribution)
    if (distribution, version, platform.system(), platform.machine()) in CHECKED:
        return
    found = _problem(module)
    if found:
        raise HintcError(
            f"custom kernels cannot run in {distribution} {version}",
            why=f"its structures are not the ones that hintc knows: {found}",
            remedy="Use " + " or ".join(sorted(f"{d} {v}" for d, v, *_ in CHECKED)) + ".",
        )


def _problem(module: str) -> str:
    """What is wrong with the runtime, "" if nothing is."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _PROBE.format(module=module)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the probe did not finish: {error}"
    if done.returncode < 0:
        return f"the probe died of signal {-done.returncode}"
    last = (done.stderr.strip().splitlines() or ["it failed"])[-1]
    return f"the probe says: {last}" if done.returncode else ""


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # the same modules under another name, e.g. a nightly
        return "of unknown version"
