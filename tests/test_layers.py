"""Imports point down only (house rules, section 1)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "convex_backend"

# Longest prefix wins. ``cli`` is a front door for operators like ``tap``.
LAYERS = {
    "convex_backend": 0,
    "convex_backend.values": 0,
    "convex_backend.errors": 0,
    "convex_backend.interfaces": 0,
    "convex_backend.deferreds": 0,
    "convex_backend.resource_files": 0,
    "convex_backend.storage": 1,
    "convex_backend.database": 2,
    "convex_backend.functions": 3,
    "convex_backend.application": 4,
    "convex_backend.web": 5,
    "convex_backend.sync": 5,
    "convex_backend.service": 6,
    "convex_backend.tap": 6,
    "convex_backend.cli": 6,
}
# What a layer may not import, besides the layers above it.
FORBIDDEN = {
    "convex_backend.values": ("twisted", "sqlite3"),
    "convex_backend.database": ("sqlite3", "convex_backend.storage", "klein", "autobahn", "twisted.web"),
    "convex_backend.functions": ("sqlite3", "convex_backend.storage", "klein", "autobahn", "twisted.web"),
    "convex_backend.application": ("sqlite3", "convex_backend.storage", "klein", "autobahn"),
    "convex_backend.web": (
        "sqlite3",
        "autobahn",
        "convex_backend.sync",
        "convex_backend.storage",
        "convex_backend.database",
        "convex_backend.functions",
    ),
    "convex_backend.sync": (
        "sqlite3",
        "klein",
        "convex_backend.web",
        "convex_backend.storage",
        "convex_backend.database",
        "convex_backend.functions",
    ),
}
REACTOR_ALLOWED = {"convex_backend.tap"}


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = ["convex_backend", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The longest name in ``LAYERS`` that *module* is or is in."""
    parts = module.split(".")
    while ".".join(parts) not in LAYERS:
        parts.pop()
    return ".".join(parts)


def imports(tree: ast.AST, module: str) -> list[tuple[int, str]]:
    """Line and full dotted name of everything that *tree* imports, wherever in the file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *([node.module] if node.module else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def within(name: str, package: str) -> bool:
    """Whether *name* is *package* or something in it."""
    return name == package or name.startswith(f"{package}.")


def complaints(module: str, source: str) -> list[str]:
    """What is wrong with the imports of *module*."""
    wrong = []
    own = room(module)
    for line, name in imports(ast.parse(source), module):
        if within(name, "convex_backend") and LAYERS[room(name)] > LAYERS[own]:
            wrong.append(f"{module}:{line} imports {name}, which is above it")
        for forbidden in FORBIDDEN.get(own, ()):
            if within(name, forbidden):
                wrong.append(f"{module}:{line} imports {name}, which {own} must not know")
        if within(name, "twisted.internet.reactor") and module not in REACTOR_ALLOWED:
            wrong.append(f"{module}:{line} imports the global reactor; it is handed in by makeService")
    return wrong


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "resources" not in path.parts)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path))
def test_imports_point_down(path: Path) -> None:
    """No module imports from a layer above it, from what its room must not know, or the global reactor."""
    assert complaints(module_name(path), path.read_text("utf-8")) == []


def test_every_module_has_a_layer_of_its_own() -> None:
    """A new file at the top of the package, or a new room, must be given a layer here."""
    names = [module_name(path) for path in SOURCES]
    assert [name for name in names if room(name) == "convex_backend" and name != "convex_backend"] == []


@pytest.mark.parametrize(
    ("module", "source", "word"),
    [
        ("convex_backend.storage.x", "import convex_backend.database.y", "above"),
        ("convex_backend.storage.x", "from convex_backend import application", "above"),
        ("convex_backend.database.query.x", "from ...service.tap import y", "above"),
        ("convex_backend.database.x", "import sqlite3", "must not know"),
        ("convex_backend.web.x", "from convex_backend.sync.protocol import y", "must not know"),
        ("convex_backend.sync.x", "from convex_backend.database import committer", "must not know"),
        ("convex_backend.service.x", "from twisted.internet import reactor", "reactor"),
    ],
)
def test_the_check_finds_what_it_is_for(module: str, source: str, word: str) -> None:
    """The check itself reports each kind of wrong import, also inside functions and relative ones."""
    found = complaints(module, source)
    assert word in " ".join(found)
