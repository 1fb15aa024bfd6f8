"""README and docs: the code runs, the links lead somewhere, the make targets exist."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pages
from hintc import registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def with_code(page: Path) -> bool:
    return any(block.language in {"python", "console"} for block in pages.blocks(page))


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if with_code(page)], ids=relative)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(pages.__file__)), str(page)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    inside = [link for link in pages.links(page) if "://" not in link]
    missing = [link for link in inside if not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_blocks_name_their_language(page: Path) -> None:
    unnamed = [block.line for block in pages.blocks(page) if not block.language]
    assert not unnamed, f"{relative(page)}: no language in lines {unnamed}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.M))
    named = {
        command.split()[1]
        for page in PAGES
        for block in pages.blocks(page)
        for command in pages.commands(block)
        if command.startswith("make ")
    }
    assert named <= targets


def test_every_page_is_reachable_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        waiting += [
            (page.parent / link.partition("#")[0]).resolve()
            for link in pages.links(page)
            if link.partition("#")[0].endswith(".md") and "://" not in link
        ]
    assert {page.resolve() for page in PAGES} <= seen


# Calls that make a remark, each with the position of the code among its arguments.
SPEAKERS = {
    **dict.fromkeys(("fused", "refused", "note", "add_notes"), 0),
    **dict.fromkeys(("Refused", "Difference", "NotFusedError", "foreign"), 0),
    "Remark": 1,
}


def remark_codes(path: Path) -> set[str]:
    """The codes of the remarks that a file makes, where they are written out."""
    calls = (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call))
    codes = (call.args[at] for call in calls if 0 <= (at := code_at(call)) < len(call.args))
    return {c.value for c in codes if isinstance(c, ast.Constant) and isinstance(c.value, str)}


def code_at(call: ast.Call) -> int:
    """Position of the code in a call that makes a remark, -1 for others."""
    called = call.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return SPEAKERS.get(name, -1)


def test_every_remark_is_explained() -> None:
    folders = (ROOT / "hintc", ROOT / "passes" / "hintc_passes")
    used = {code for f in folders for path in f.rglob("*.py") for code in remark_codes(path)}
    rows = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs/remarks.md").read_text("utf-8"), flags=re.M)
    explained = {code for row in rows for code in re.findall(r"`([^`]+)`", row)}
    assert used == explained


def test_every_pass_is_explained() -> None:
    explained = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    missing = [name for name in registry.passes() if f"`{name}`" not in explained]
    assert not missing
