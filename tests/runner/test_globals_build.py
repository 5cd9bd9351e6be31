"""The build of ``resources/runner/dist``: what it may depend on and what it must leave behind."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .harness import DIST, NODE, RUNNER


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that the build writes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".inputs.sha256"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_lock_file_names_no_registry() -> None:
    """The lock pins versions and hashes, and leaves the choice of a registry to the machine that installs."""
    lock = json.loads((RUNNER / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    for name, entry in packages.items():
        assert "resolved" not in entry, name
        assert entry["integrity"].startswith("sha512-"), name
        assert entry["version"], name


def test_package_versions_are_exact() -> None:
    """package.json asks for one version of each package: ranges would let builds differ."""
    wanted = json.loads((RUNNER / "package.json").read_text())["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())


def test_notices_name_every_bundled_package() -> None:
    """Each package whose code is in the bundle is listed with its licence text."""
    notices = (DIST / "THIRD_PARTY_NOTICES.txt").read_text()
    for name in ("@exodus/bytes", "acorn", "convex", "object-inspect", "tr46", "web-streams-polyfill", "whatwg-url"):
        assert re.search(rf"^{re.escape(name)} \d", notices, re.MULTILINE), name
    assert "esbuild" not in notices
    assert notices.count("MIT") >= 4


def test_groups_are_function_expressions_without_host_access() -> None:
    """Groups run inside contexts: they import nothing, and name no built-in of Node."""
    manifest = json.loads((DIST / "globals.json").read_text())
    for name, group in manifest["groups"].items():
        text = (DIST / group["file"]).read_text()
        assert text.startswith("function (bridge, use) {"), name
        assert text.endswith("}"), name
        assert "require(" not in text, name
        assert "node:" not in text, name


def test_build_is_deterministic(tmp_path: Path) -> None:
    """Two builds of the same sources, in two places, are equal byte for byte."""
    if not (RUNNER / "node_modules").is_dir():
        pytest.skip("the packages of the build are not installed")
    copies = []
    for name in ("one", "two"):
        copy = tmp_path / name
        copy.mkdir()
        for file in ("build.mjs", "package.json"):
            shutil.copy(RUNNER / file, copy)
        shutil.copytree(RUNNER / "src", copy / "src")
        shutil.copytree(RUNNER / "node_modules", copy / "node_modules", symlinks=True)
        done = subprocess.run([NODE, "build.mjs"], cwd=copy, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        copies.append(digest(copy / "dist"))
    assert copies[0] == copies[1]
    assert {"main.mjs", "bridge.js", "globals.json", "THIRD_PARTY_NOTICES.txt"} <= set(copies[0])
    assert {"library.json", "library/server.js", "library/values.js", "browser/convex.js"} <= set(copies[0])


def test_library_is_plain_modules_of_its_own() -> None:
    """npm's library for functions imports nothing but its own parts, each of which has its place among a deployment's modules."""
    manifest = json.loads((DIST / "library.json").read_text())
    assert manifest["version"] == json.loads((RUNNER / "package.json").read_text())["devDependencies"]["convex"]
    assert {"_deps/convex/server.js", "_deps/convex/values.js"} <= set(manifest["modules"])
    names = {Path(path).name for path in manifest["modules"]}
    for path, file in manifest["modules"].items():
        text = (DIST / file).read_text()
        imported = set(re.findall(r"""(?:from|import)\s*["']([^"']+)["']""", text))
        assert imported <= {f"./{name}" for name in names}, path


def test_browser_client_is_one_file_for_any_page() -> None:
    """The client for pages is one module that imports nothing and names no built-in of Node."""
    text = (DIST / "browser" / "convex.js").read_text()
    assert not re.search(r"""(?:^|[;}])import\s*[\w{*"']""", text)
    assert "node:" not in text
    assert re.search(r"export\{[^}]*as ConvexClient[^}]*as anyApi|export\{[^}]*as anyApi[^}]*as ConvexClient", text)
