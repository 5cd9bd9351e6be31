"""The ``"use node"`` code of deployments on disk, where Node imports it from.

::

    packages/
      <id>/          id = digest of modules and dependencies: what is there is whole and never changes
        modules/       foo.js, foo.js.map, _deps/node/…
        node_modules   a link to the installation of the dependencies
        package.json   says that .js files are ES modules
        tmp/           what actions may write; the only part that they may
      .new-<random>/ while it is written, then renamed

A package is made from the database when a call or a push needs it, and goes when nothing uses it and newer ones have come.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from convex_backend.application.node_dependencies import NodeDependencies, NodeDependency, dependencies_id
from convex_backend.deferreds import Coalescer
from convex_backend.functions.guards import give_to_children, let_children_pass
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.node_executor import NodePackage

#: Packages that are kept although nothing uses them.
KEPT: Final = 2
_MANIFEST: Final = b'{"name":"convex-functions","private":true,"type":"module"}\n'

ReadText = Callable[[str], Awaitable[ModuleText]]


@attrs.frozen(slots=True, eq=False)
class NodeCode:
    """The ``"use node"`` code of one deployment.

    :param modules: runnable hash by path. :param dependencies: its external packages, sorted.
    """

    modules: Mapping[str, str]
    dependencies: tuple[NodeDependency, ...]
    id: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        digest = hashlib.sha256()
        for path in sorted(self.modules):
            digest.update(f"{path}\0{self.modules[path]}\n".encode())
        digest.update((dependencies_id(self.dependencies) or "").encode())
        object.__setattr__(self, "id", digest.hexdigest()[:32])


@attrs.define(eq=False, slots=True)
class _Held:
    package: NodePackage
    installed: Path | None
    users: int = 0


class NodePackages:
    """Writes and removes them.

    :param directory: made when it is needed. :param pool: threads for files.
    :param read_text: a deployed module's text by its runnable hash. :param is_live: whether children of the package with this id run.
    """

    _log = Logger()

    def __init__(
        self,
        directory: Path,
        dependencies: NodeDependencies,
        *,
        read_text: ReadText,
        is_live: Callable[[str], bool],
        reactor: Any,
        pool: Any,
        random_name: Callable[[], str],
    ) -> None:
        self._directory = directory.absolute()
        self._dependencies = dependencies
        self._read_text = read_text
        self._is_live = is_live
        self._reactor = reactor
        self._pool = pool
        self._random_name = random_name
        self._making: Coalescer[str, Path] = Coalescer()
        #: by id, the one that was used last at the end
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._sweeping: Coalescer[None, None] = Coalescer()
        self._swept = False

    @asynccontextmanager
    async def use(self, code: NodeCode, read_text: ReadText | None = None) -> AsyncIterator[NodePackage]:
        """The package of *code*, on disk for as long as the context lasts.

        :param read_text: of modules that are not deployed yet.
        :raises BadRequest: its dependencies cannot be installed.
        """
        if not self._swept:
            await self._sweeping.run(None, self._sweep)
        installed = await self._dependencies.ensure(code.dependencies)
        self._dependencies.hold(installed)
        held: _Held | None = None
        try:
            held = self._held.get(code.id)
            if held is None:
                directory = await self._making.run(
                    code.id, lambda: self._make(code, installed, read_text or self._read_text)
                )
                # Others may have waited for it too.
                held = self._held.get(code.id)
                if held is None:
                    package = NodePackage(code.id, str(directory), None if installed is None else str(installed))
                    held = self._held[code.id] = _Held(package, installed)
            held.users += 1
            yield held.package
        finally:
            self._dependencies.release(installed)
            if held is not None:
                held.users -= 1
                self._held.move_to_end(code.id)
                await self._collect()

    async def _make(self, code: NodeCode, installed: Path | None, read_text: ReadText) -> Path:
        target = self._directory / code.id
        if target.is_dir():
            # Whoever wanted it has gone.
            return target
        texts = {path: await read_text(digest) for path, digest in code.modules.items()}
        new = self._directory / f".new-{self._random_name()}"
        await self._thread(_write, new, texts, installed)
        new.rename(target)
        return target

    async def _collect(self) -> None:
        """Remove what nothing uses, but for the newest ones."""
        unused = [one for one, held in self._held.items() if not held.users and not self._is_live(one)]
        for identifier in unused[: max(0, len(unused) - KEPT)]:
            held = self._held.pop(identifier)
            gone = self._directory / f".old-{self._random_name()}"
            # At once: who needs it from here on makes it again.
            Path(held.package.directory).rename(gone)
            await self._thread(shutil.rmtree, gone, True)

    async def _sweep(self) -> None:
        """Remove what an earlier life of the server has left: all of it can be made again."""
        await self._dependencies.sweep()
        # What else is in the storage stays closed to others by its own modes.
        let_children_pass(self._directory.parent.parent)
        if self._directory.is_dir():
            for one in list(self._directory.iterdir()):
                await self._thread(shutil.rmtree, one, True)
        self._swept = True

    async def _thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await deferToThreadPool(self._reactor, self._pool, function, *args)


def _write(new: Path, texts: Mapping[str, ModuleText], installed: Path | None) -> None:
    (new / "modules").mkdir(parents=True)
    (new / "tmp").mkdir()
    give_to_children(new / "tmp")
    (new / "package.json").write_bytes(_MANIFEST)
    if installed is not None:
        (new / "node_modules").symlink_to(installed.absolute() / "node_modules")
    for path, text in texts.items():
        file = new / "modules" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.source)
        if text.source_map is not None:
            file.with_name(f"{file.name}.map").write_bytes(text.source_map)
