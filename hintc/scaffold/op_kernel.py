"""``hintc new-op``: a folder with a kernel in C for one custom op."""

from __future__ import annotations

import re
from pathlib import Path

from hintc.errors import HintcError
from hintc.runtime.abi_check import CHECKED
from hintc.scaffold.folder import write_folder

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_WORD_ENDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])")


def new_op(name: str, into: Path) -> tuple[Path, list[Path]]:
    """Writes the folder of a custom op's kernel.

    Args:
        name: of the op, as in ``OpHint(name)``: letters, digits and underscores.
        into: where to make the folder; it is named like the op, in lower case.

    Returns:
        The folder, and its files relative to it.

    Raises:
        HintcError: a name that C cannot have, or what `write_folder` refuses.
    """
    if not _NAME.match(name):
        raise HintcError(
            f"'{name}' cannot be the name of an op",
            why="it must be letters, digits and underscores, a letter first",
        )
    file = _WORD_ENDS.sub("_", name).lower()
    checked = " and ".join(f"{d} {v}" for d, v in sorted({entry[:2] for entry in CHECKED}))
    words = {"code": name, "file": file, "checked": checked}
    folder = into / file
    return folder, write_folder("op_kernel", folder, words)
