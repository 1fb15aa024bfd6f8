"""The import direction, read off the source: each layer imports only what stands before it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "hintc"
PLUGIN = ROOT / "passes" / "hintc_passes"

# Modules in one tuple are siblings: neither may import the other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("remark", "near", "files", "collector", "shared", "authoring"),
    ("ir", "meant"),
    ("ops", "graft", "call_graph", "report"),
    ("flexbuffer",),
    ("hints",),
    ("inlining", "outlining", "precision"),
    ("text", "verify", "pattern"),
    ("emitter",),
    ("rewrite",),
    ("options",),
    ("registry",),
    ("instrument",),
    ("pipeline",),
    ("viz", "graphdef"),
    ("source", "runtime"),
    ("equivalence",),
    ("tflite",),
    ("convert",),
    ("compat", "scaffold"),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# What these may import of hintc, where that is less than everything before them.
ONLY = {"authoring": {"errors"}, "ir": {"errors"}}
# Importing these must not load TensorFlow or protobuf.
LIGHT = (
    *("errors", "remark", "authoring", "ir", "ops", "text", "verify", "pattern", "rewrite"),
    *("registry", "instrument", "pipeline", "viz", "cli"),
)
HEAVY = ("tensorflow", "google.protobuf", "keras", "tf_keras", "ai_edge_litert")


# The folders of the built-in passes: what each may import of the others.
FOLDERS: dict[str, set[str]] = {
    "analysis": set(),
    "cells": {"analysis"},
    "hinting": set(),
    "scans": {"analysis", "cells"},
    "loops": {"analysis", "scans"},
    "chains": {"analysis", "scans"},
    "steps": {"analysis", "cells"},
    "frames": {"analysis"},
    "directions": {"analysis"},
    "training": set(),
}


def layer_of(path: Path) -> str:
    """Name of the layer that a file of the core belongs to."""
    first = path.relative_to(CORE).parts[0]
    return first.removesuffix(".py")


def imported_modules(path: Path, *, top_level_only: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, names of `from` imports included."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def core_layers_imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and layer of each import of hintc in a file."""
    for line, name in imported_modules(path):
        package, _, rest = name.partition(".")
        if package == "hintc":
            yield line, rest.partition(".")[0]


CORE_FILES = sorted(path for path in CORE.rglob("*.py") if path != CORE / "__init__.py")
PLUGIN_FILES = sorted(PLUGIN.rglob("*.py"))


def test_every_layer_has_its_place() -> None:
    found = {layer_of(path) for path in CORE_FILES}
    assert found <= RANK.keys(), f"give {found - RANK.keys()} a place in LAYERS"


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_imports_only_what_stands_before_it(path: Path) -> None:
    layer = layer_of(path)
    rank = RANK.get(layer, -1)  # one without a place fails the test above
    allowed = ONLY.get(layer, {name for name in RANK if RANK[name] < rank}) | {layer}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: '{layer}' imports '{imported}'"
        for line, imported in core_layers_imported(path)
        if imported not in allowed
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_knows_no_pass(path: Path) -> None:
    wrong = [line for line, name in imported_modules(path) if name.startswith("hintc_passes")]
    assert not wrong, f"{path.relative_to(ROOT)} imports hintc_passes in lines {wrong}"


@pytest.mark.parametrize(
    "path", sorted((CORE / "ir").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_ir_is_free_of_protobuf_and_tensorflow(path: Path) -> None:
    lazily = path.name in {"opdefs.py", "wire.py"}  # registry of ops; serialisation
    wrong = [
        line
        for line, name in imported_modules(path, top_level_only=lazily)
        if name.startswith(HEAVY)
    ]
    assert not wrong, f"{path.relative_to(ROOT)} imports protobuf or TensorFlow in lines {wrong}"


@pytest.mark.parametrize("path", PLUGIN_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_passes_use_only_what_stands_before_convert(path: Path) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports '{imported}'"
        for line, imported in core_layers_imported(path)
        if imported not in RANK or RANK[imported] >= RANK["convert"]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_passes_import_one_way(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports '{name}'"
        for path in sorted((PLUGIN / folder).rglob("*.py"))
        for line, name in imported_modules(path)
        if name.startswith("hintc_passes.") and name.split(".")[1] not in FOLDERS[folder] | {folder}
    ]
    assert not wrong, "\n".join(wrong)


def test_legalisation_knows_nothing_of_integers() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((CORE / "tflite").glob("*.py"))
        for line, name in imported_modules(path)
        if name.startswith("hintc.tflite.integers")
    ]
    assert not wrong, "\n".join(wrong)


def test_every_folder_of_passes_has_its_place() -> None:
    assert {path.parent.name for path in PLUGIN.glob("*/__init__.py")} == FOLDERS.keys()


@pytest.mark.parametrize("statement", ["import hintc", *(f"import hintc.{m}" for m in LIGHT)])
def test_import_is_light(statement: str) -> None:
    script = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"'{statement}' loads {done.stdout.strip()}"
