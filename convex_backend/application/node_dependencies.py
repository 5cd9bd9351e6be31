"""The npm packages that ``"use node"`` modules import from outside their bundles: installed once for each list of versions (``push.md`` section 15).

::

    dependencies/
      <id>/            package.json, node_modules      id = digest of the sorted list; never changed once it is there
      .new-<random>/   while npm is at work, then renamed
      .npm-cache/      npm's own

An installation is used by as many deployments as name the same list, offline too. Those that were used least recently go when there are too many.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import orjson
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from convex_backend.application.env_declarations import PUSH_PREFIX
from convex_backend.deferreds import Coalescer
from convex_backend.errors import BadRequest

MAX_DEPENDENCIES: Final = 256
#: Installations that are kept although nothing uses them.
KEPT: Final = 8
_NAME: Final = re.compile(r"(@[a-z0-9~][a-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]{0,213}")
_VERSION: Final = re.compile(r"[~^]?[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")

Install = Callable[[Path, Path], Awaitable[str | None]]


@attrs.frozen(slots=True, order=True)
class NodeDependency:
    """One package: name and version as the CLI names them."""

    name: str
    version: str


def read_dependencies(tree: object) -> tuple[NodeDependency, ...]:
    """``nodeDependencies`` of a push, sorted.

    :raises BadRequest: malformed, or not a version of a package in a registry.
    """
    if not isinstance(tree, list) or len(tree) > MAX_DEPENDENCIES:
        raise BadRequest(
            "BadJsonBody",
            f"Invalid push request: `nodeDependencies` must be an array of at most {MAX_DEPENDENCIES} packages",
        )
    found = set()
    for one in tree:
        name, version = (one.get("name"), one.get("version")) if isinstance(one, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(version, str):
            raise BadRequest("BadJsonBody", "Invalid push request: a node dependency must have `name` and `version`")
        # What npm would take for a folder, an address or an option is none.
        if _NAME.fullmatch(name) is None or _VERSION.fullmatch(version) is None:
            raise BadRequest(
                "InvalidNodeDependency",
                f"{PUSH_PREFIX}The external package {name!r} in version {version!r} cannot be installed: "
                "a name and a version of a package in a registry are needed.",
            )
        found.add(NodeDependency(name, version))
    return tuple(sorted(found))


def dependencies_id(dependencies: Iterable[NodeDependency]) -> str | None:
    """What the list is called; ``None`` for an empty one. Native code differs between machines, so these are part of it."""
    listed = sorted(dependencies)
    if not listed:
        return None
    lines = [f"{sys.platform}-{platform.machine()}", *(f"{one.name}@{one.version}" for one in listed)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


class NodeDependencies:
    """Installs and keeps them.

    :param directory: made when it is needed.
    :param install: runs npm in a directory with a cache; returns its words if it failed. :param pool: threads for files.
    :param random_name: for directories under way.
    """

    _log = Logger()

    def __init__(
        self, directory: Path, *, install: Install, reactor: Any, pool: Any, random_name: Callable[[], str]
    ) -> None:
        self._directory = directory.absolute()
        self._install = install
        self._reactor = reactor
        self._pool = pool
        self._random_name = random_name
        self._running: Coalescer[str, Path] = Coalescer()
        self._used: Counter[str] = Counter()

    async def ensure(self, dependencies: tuple[NodeDependency, ...]) -> Path | None:
        """The directory with the ``node_modules`` of this list, installed if need be; ``None`` for an empty list.

        :raises BadRequest: npm could not install them; with its words.
        """
        identifier = dependencies_id(dependencies)
        if identifier is None:
            return None
        target = self._directory / identifier
        if target.is_dir():
            os.utime(target)
            return target
        return await self._running.run(identifier, lambda: self._make(target, dependencies))

    def hold(self, path: Path | None) -> None:
        """Keep the installation at *path* until it is released."""
        if path is not None:
            self._used[path.name] += 1

    def release(self, path: Path | None) -> None:
        """See :meth:`hold`."""
        if path is not None:
            self._used[path.name] -= 1

    async def _make(self, target: Path, dependencies: tuple[NodeDependency, ...]) -> Path:
        new = self._directory / f".new-{self._random_name()}"
        new.mkdir(parents=True)
        try:
            manifest = {
                "name": "convex-external-packages",
                "version": "1.0.0",
                "private": True,
                "dependencies": {one.name: one.version for one in dependencies},
            }
            (new / "package.json").write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
            words = await self._install(new, self._directory / ".npm-cache")
            if words is not None:
                listed = ", ".join(f"{one.name}@{one.version}" for one in dependencies)
                raise BadRequest(
                    "NodeDependenciesFailed",
                    f"{PUSH_PREFIX}The external packages {listed} could not be installed:\n{words}",
                )
            (new / "node_modules").mkdir(exist_ok=True)
            # Whoever made the same list meanwhile had the same.
            if not target.is_dir():
                new.rename(target)
        finally:
            await self._thread(shutil.rmtree, new, True)
        self._log.info("installed {count} external packages for Node actions", count=len(dependencies))
        await self._collect(target.name)
        return target

    async def _collect(self, newest: str) -> None:
        """Remove installations that have not been used for longest, beyond :data:`KEPT`."""
        others = [one for one in self._directory.iterdir() if not one.name.startswith(".") and one.name != newest]
        unused = sorted((one for one in others if self._used[one.name] <= 0), key=lambda one: one.stat().st_mtime)
        for one in unused[: max(0, len(unused) - KEPT)]:
            gone = self._directory / f".old-{self._random_name()}"
            one.rename(gone)
            await self._thread(shutil.rmtree, gone, True)

    async def sweep(self) -> None:
        """Remove what an earlier life of the server has left unfinished."""
        if self._directory.is_dir():
            for one in self._directory.iterdir():
                if one.name.startswith((".new-", ".old-")):
                    await self._thread(shutil.rmtree, one, True)

    async def _thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await deferToThreadPool(self._reactor, self._pool, function, *args)


def npm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that npm may see: not the server's own."""
    return {name: value for name, value in environment.items() if not name.startswith(("CONVEX", "INSTANCE"))}
