"""The demo app: deployed to an empty deployment by the server itself, through the same use case as ``POST /api/deploy``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final

import attrs

from convex_backend.application.simple_deploy import SimpleDeploy
from convex_backend.application.types import SYSTEM, Caller

if TYPE_CHECKING:
    from convex_backend.application.push_history import PushHistory
    from convex_backend.application.push_store import PushStore
    from convex_backend.database.database import Database

_CLIENT: Final = "demo"
_ROOT: Final = 0
_SCHEMA: Final = "schema.js"


class DemoState(Enum):
    """What became of the wish for a demo."""

    DEPLOYED = "deployed"
    """The deployment was empty; it has the demo now."""
    PRESENT = "present"
    """The demo was deployed at an earlier start, and nothing else since; functions of an older version were replaced."""
    NOT_EMPTY = "not empty"
    """There is an app or there are tables: nothing was touched."""


@attrs.frozen(slots=True)
class DemoFiles:
    """The demo as files. :param functions: module sources by path. :param pages: contents by the name under ``/demo/``; ``""`` is the page."""

    functions: Mapping[str, str]
    pages: Mapping[str, bytes]


class Demo:
    """Deploys the demo, and hands out its page once it is there.

    :param read_files: called when the demo is wanted.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: PushStore,
        history: PushHistory,
        simple_deploy: SimpleDeploy,
        read_files: Callable[[], DemoFiles],
    ) -> None:
        self._database = database
        self._store = store
        self._history = history
        self._simple_deploy = simple_deploy
        self._read_files = read_files
        self._pages: Mapping[str, bytes] = {}

    async def start(self) -> DemoState:
        """Deploy the demo if the deployment is empty, and offer its page unless there is another app.

        :raises BadRequest: it cannot be deployed, which is a fault of ours.
        """
        state = await self._state()
        if state is DemoState.NOT_EMPTY:
            return state
        files = self._read_files()
        if state is DemoState.DEPLOYED or not await self._is_current(files):
            caller = Caller("HttpApi", _CLIENT, None, "0" * 16)
            await self._simple_deploy.deploy({"functions": files.functions, "message": "The demo"}, SYSTEM, caller)
        self._pages = files.pages
        return state

    def page(self, name: str) -> bytes | None:
        """A file of the demo's page; ``None`` when there is none, or no demo."""
        return self._pages.get(name)

    async def _is_current(self, files: DemoFiles) -> bool:
        """Whether the deployed functions are those of *files*."""
        transaction = self._database.begin("query")
        try:
            modules = await self._store.modules(transaction, _ROOT)
            for path, source in files.functions.items():
                if path == _SCHEMA:
                    continue
                text = await self._store.text(transaction, modules[path].hash) if path in modules else None
                if text is None or text.source.decode() != source:
                    return False
            return True
        finally:
            transaction.close()

    async def _state(self) -> DemoState:
        transaction = self._database.begin("query")
        try:
            await transaction.ensure_begun()
            newest = await self._history.entries(transaction, 1)
            if newest and newest[0].client == _CLIENT:
                return DemoState.PRESENT
            modules = await self._store.modules(transaction, _ROOT)
            if newest or modules or transaction.catalog.tables_of(_ROOT):
                return DemoState.NOT_EMPTY
            return DemoState.DEPLOYED
        finally:
            transaction.close()
