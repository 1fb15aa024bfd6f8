"""``hintc new-pass``: an installable package with one pass."""

from __future__ import annotations

import re
from pathlib import Path

from hintc.errors import HintcError
from hintc.scaffold.folder import write_folder

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


def new_pass(name: str, into: Path) -> tuple[Path, list[Path]]:
    """Writes the folder of a plug-in.

    Args:
        name: of the pass: lower-case words joined by dashes.
        into: where to make the folder; it has the name of the pass.

    Returns:
        The folder, and its files relative to it.

    Raises:
        HintcError: a name that no pass can have, or what `write_folder` refuses.
    """
    if not _NAME.match(name):
        raise HintcError(
            f"'{name}' cannot be the name of a pass",
            why="it must be lower-case words joined by dashes, like fuse-my-conv",
        )
    file = name.replace("-", "_")
    words = {
        "name": name,
        "file": file,
        "class": "".join(word.capitalize() for word in name.split("-")),
        "package": f"hintc_{file}",
    }
    folder = into / name
    return folder, write_folder("pass_package", folder, words)
