"""A fresh environment in which tests install packages, as somebody else would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path


class Environment:
    """A fresh environment that also sees what is installed here, hintc among it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        (site,) = folder.glob("lib/python*/site-packages")
        here = [path for path in sys.path if path.endswith("site-packages")]
        lines = [f"import site; site.addsitedir({path!r})" for path in here]
        (site / "what_is_here.pth").write_text("\n".join(lines))

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.python), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def pip(self, *arguments: str) -> None:
        self.run("-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def passes(self) -> tuple[set[str], str]:
        """Names of the passes, and what was said about plug-ins."""
        done = self.run("-m", "hintc", "passes", "--json")
        return {entry["name"] for entry in json.loads(done.stdout)["passes"]}, done.stderr
