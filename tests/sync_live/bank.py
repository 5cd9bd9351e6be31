"""The bank app on a server: how it is pushed and what it starts with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests import npm_cache
from tests.e2e.harness import Server, convex

HERE = Path(__file__).parent
ACCOUNTS = 8
BALANCE = 1000


def make_bank_app(folder: Path) -> Path:
    """A copy of the app that can run the CLI and the scripts of ``clients/``."""
    target = folder / "bank"
    shutil.copytree(HERE / "app", target, ignore=shutil.ignore_patterns("_generated", "node_modules"))
    for script in (HERE / "clients").glob("*.mjs"):
        shutil.copy(script, target)
    (target / "node_modules").symlink_to(npm_cache.installed() / "node_modules")
    return target


def open_bank(app: Path, server: Server) -> None:
    """Push the app and make the accounts."""
    convex(app, server, "deploy", "-y", "--typecheck", "disable", "--codegen", "disable")
    server.value("mutation", "bank:open", {"accounts": ACCOUNTS, "balance": BALANCE})


def copy_of(data: Path, folder: Path) -> Path:
    """Copy a stopped server's folder into the empty *folder*. :returns: *folder*."""
    shutil.copytree(data, folder, dirs_exist_ok=True)
    return folder


def client_process(app: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a script of ``clients/``; it prints JSON lines and reads its standard input."""
    return subprocess.Popen(
        [str(npm_cache.NODE), str(app / script), *arguments],
        cwd=app,
        env=npm_cache.node_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
