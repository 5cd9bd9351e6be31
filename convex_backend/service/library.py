"""npm's library as the build of this package left it beside the runner, for deploys without a bundler."""

from __future__ import annotations

import orjson

from convex_backend.application.simple_deploy import Library
from convex_backend.resource_files import resource


def read_library() -> Library:
    """Read a few files, 100 kB together; done once, at the first simple deploy.

    :raises FileNotFoundError: the runner has not been built.
    """
    dist = resource("runner", "dist")
    manifest = orjson.loads((dist / "library.json").read_bytes())
    modules = {path: (dist / file).read_text("utf-8") for path, file in manifest["modules"].items()}
    return Library(manifest["version"], modules)
