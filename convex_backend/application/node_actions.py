"""``"use node"`` actions: the deployed code put on disk and run there (``runtime.md`` section 11)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from twisted.logger import Logger

from convex_backend.application.directory import Directory
from convex_backend.application.node_packages import NodeCode, NodePackages, ReadText
from convex_backend.errors import BadRequest
from convex_backend.functions.analyze import Analysis
from convex_backend.functions.node_executor import NodeExecutor
from convex_backend.interfaces import CallHost, CallSpec, FunctionError, Outcome


class NodeRunner(Protocol):
    """What runs them, as the use case of actions sees it."""

    async def run(self, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome:
        """Run an action of the deployed code. :raises Overloaded: it was not started."""


class NodeActions:
    """Implements :class:`NodeRunner`, and analyses pushed modules."""

    _log = Logger()

    def __init__(self, *, directory: Directory, packages: NodePackages, executor: NodeExecutor) -> None:
        self._directory = directory
        self._packages = packages
        self._executor = executor

    async def run(self, spec: CallSpec, make_host: Callable[[], CallHost]) -> Outcome:
        """See :class:`NodeRunner`."""
        code = await self._directory.node_code()
        try:
            async with self._packages.use(code) as package:
                return await self._executor.run(package, spec, make_host)
        except BadRequest as error:
            # The packages had to be installed again, and could not be.
            self._log.warn("a Node action could not be started: {error}", error=error)
            return Outcome(None, FunctionError(error.message), (), frozenset(), 0.0)

    @asynccontextmanager
    async def analysis(self, code: NodeCode, read_text: ReadText) -> AsyncIterator[tuple[Analysis, str]]:
        """A child that analyses modules of *code*, and the directory of its package.

        :param read_text: text of a module by hash, deployed or not.
        :raises BadRequest: the dependencies cannot be installed.
        """
        async with self._packages.use(code, read_text) as package:
            child = await self._executor.open_analysis(package)
            try:
                yield child, package.directory
            finally:
                await child.close()
