"""Function folders bundled as the official CLI bundles them, with the npm package ``convex``."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.npm_cache import NODE, installed

_ESBUILD = Path(__file__).parents[2] / "resources" / "runner" / "node_modules" / "esbuild"


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
            [NODE, Path(__file__).with_name("bundle.mjs"), _ESBUILD, project, installed() / "node_modules"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
    return {path: (parts["source"], parts.get("sourceMap")) for path, parts in json.loads(done.stdout).items()}
