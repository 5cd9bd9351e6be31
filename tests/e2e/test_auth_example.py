"""The example of ``docs/authentication.md``, as it is printed there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import convex, make_app, running

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "authentication.md").read_text("utf-8")


@pytest.mark.slow
def test_the_example(tmp_path: Path) -> None:
    """Its key pair, config, query and token work together and give the identity that the page shows."""
    script = PAGE.split("<<'EOF_PYTHON'\n")[1].split("EOF_PYTHON\n")[0]
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    values = dict(line.split("=", 1) for line in printed.splitlines())
    app = make_app(tmp_path, "auth")
    for old in app.glob("convex/*.ts"):
        old.unlink()
    block = PAGE.split("```ts\n// convex/auth.config.ts")[1].split("```")[0]
    for part in ("// convex/auth.config.ts" + block).split("// convex/")[1:]:
        name, source = part.split("\n", 1)
        (app / "convex" / name).write_text(source)
    (tmp_path / "server").mkdir()
    with running(tmp_path / "server") as server:
        convex(app, server, "env", "set", "JWKS", values["JWKS"])
        convex(app, server, "dev", "--once", "--typecheck", "disable")
        headers = {"Authorization": f"Bearer {values['TOKEN']}"}
        _, _, body = server.request("POST", "/api/query", {"path": "users:me", "args": {}}, headers)
    identity = json.loads(body)["value"]
    assert identity["role"] == "admin"
    shown = re.search(r'"tokenIdentifier": "([^"]+)"', PAGE)
    assert shown is not None and identity["tokenIdentifier"] == shown[1]
