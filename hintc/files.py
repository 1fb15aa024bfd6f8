"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from hintc.errors import HintcError


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write a file under a temporary name beside it, then put it in place in one step.

    Whoever reads `path` sees the old content or the new, never a part. Text is UTF-8. The
    permissions are those of the file that was there, else the process's default.

    Returns:
        The path.

    Raises:
        HintcError: the folder does not exist or the file cannot be written; then `path` is as
            it was.
    """
    # A link is followed, so that it stays one.
    target = Path(os.path.realpath(os.fspath(path)))
    content = data.encode() if isinstance(data, str) else data
    if not target.parent.is_dir():
        raise HintcError(f"cannot write '{path}'", why=f"there is no folder '{target.parent}'")
    if target.is_dir():
        raise HintcError(f"cannot write '{path}'", why="it is a folder")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)  # a device or pipe, e.g. /dev/null, cannot be replaced
        else:
            _replace(target, content)
    except OSError as error:
        raise HintcError(f"cannot write '{path}'", why=error.strerror or str(error)) from error
    return Path(path)


def _replace(target: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _mode(target: Path) -> int:
    try:
        return target.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
