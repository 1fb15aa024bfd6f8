"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
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
    # Named by itself: the target's name may be as long as names can be.
    temporary = target.parent / f".hintc-{secrets.token_hex(8)}"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    try:
        # The system takes the process's default off these permissions, which cannot be asked for
        # without setting it for other threads.
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, target.stat().st_mode & 0o777)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
