"""The files of the demo, from ``resources/demo`` and the bundled browser client."""

from __future__ import annotations

from convex_backend.application.demo import DemoFiles
from convex_backend.resource_files import resource


def read_demo() -> DemoFiles:
    """Read them, 100 kB together; done once, when the server was started with ``--demo``.

    :raises FileNotFoundError: a file is missing: the package was not built whole.
    """
    folder = resource("demo")
    functions = {path.name: path.read_text("utf-8") for path in sorted((folder / "functions").glob("*.js"))}
    pages = {name: (folder / name).read_bytes() for name in ("page.js", "style.css")}
    pages[""] = (folder / "index.html").read_bytes()
    pages["convex.js"] = resource("runner", "dist", "browser", "convex.js").read_bytes()
    return DemoFiles(functions, pages)
