"""The history of pushes: who pushed what and when, and all that is needed to push it again.

One row of ``_push_history`` for each finished push, written in the commit that made it the deployed one; the last :data:`KEPT_PUSHES` are kept. A
row holds the push's request with the hash of each module in place of its text::

    {"appDefinition": {"definition": M | null, "schema": M | null, "changedModules": [M, …], …}, "componentDefinitions": […], …}
    M = {"path", "environment", "hash"}

so going back is the same push again, through the same checks. The texts are those of ``_source_packages``, which keeps them as long as a row
names them (:meth:`PushHistory.texts_in_use`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from convex_backend.database.backend_state import read_state, write_state
from convex_backend.database.system_tables import PUSH_HISTORY
from convex_backend.errors import NotFound
from convex_backend.functions.module_text import ModuleText
from convex_backend.functions.modules import module_text
from convex_backend.values.paths import InvalidPath, parse_module_path

if TYPE_CHECKING:
    from convex_backend.application.push_store import PushStore
    from convex_backend.application.types import Caller
    from convex_backend.database.transaction import Transaction

#: Pushes that can be listed and gone back to.
KEPT_PUSHES: Final = 50
#: Bytes of texts that the entries before the current one may keep alive; the push before the current one is kept in any case.
MAX_TEXT_BYTES: Final = 256 << 20
#: Longest message of a push that is kept; the CLI allows 1024 bytes.
_MAX_MESSAGE: Final = 4096
_NEVER_DROPPED: Final = 2
_STATE_KEY: Final = "push_history"


@attrs.frozen(slots=True)
class PushRecord:
    """What is kept of a push that has been evaluated.

    :param request: its request, with hashes for texts, as JSON text.
    :param modules: module hashes by path, by path of the component's definition.
    :param definitions: the definition of each component, by its path.
    :param texts: of definitions and schemas, which no row of ``_modules`` names.
    :param sizes: bytes of each text that was sent, by hash.
    """

    request: bytes
    modules: Mapping[str, Mapping[str, str]]
    definitions: Mapping[str, str]
    texts: tuple[ModuleText, ...]
    sizes: Mapping[str, int]


@attrs.frozen(slots=True)
class HistoryEntry:
    """One finished push.

    :param id: counts up from 1. :param time_ms: wall clock of its commit.
    :param client: ``npm-cli``, …, ``unknown``; ``version`` its semver or ``None``; ``message`` the developer's, or ``None``.
    :param changes: ``{"auth": {added, removed}, "components": {path: {"modules": {added, changed, removed}, "indexes": {added, removed},
        "crons": {added, updated, deleted}, "schemaChanged", "type"}}}``: names only.
    :param current: it is what is deployed.
    """

    id: int
    time_ms: float
    client: str
    version: str | None
    message: str | None
    changes: dict[str, Any]
    current: bool

    def to_json(self) -> dict[str, Any]:
        """As ``/api/push_history`` shows it."""
        return attrs.asdict(self, recurse=False)


class PushHistory:
    """The only reader and writer of ``_push_history``.

    :param store: where the texts are; it is told which to keep.
    :param now_ns: wall clock.
    """

    def __init__(self, *, store: PushStore, now_ns: Callable[[], int]) -> None:
        self._store = store
        self._now_ns = now_ns
        store.texts_in_use = self.texts_in_use

    def prepare(
        self, tree: Mapping[str, Any], deployed: Mapping[str, str], app: Mapping[str, Any], stored: Iterable[ModuleText]
    ) -> PushRecord:
        """What to keep of a push, once it has been evaluated.

        :param tree: the request of ``start_push``. :param deployed: hashes of all modules of the app by path, the unchanged ones included.
        :param app: the tree of components of the answer (``push.md`` section 7.4).
        :param stored: texts that finishing the push stores anyway.
        """
        known = {text.hash for text in stored}
        texts: dict[str, ModuleText] = {}
        sizes: dict[str, int] = {}

        def keep(tree: Any) -> Any:
            if isinstance(tree, list):
                return [keep(one) for one in tree]
            if not isinstance(tree, dict):
                return tree
            if not (isinstance(tree.get("path"), str) and isinstance(tree.get("source"), str)):
                return {name: keep(value) for name, value in tree.items()}
            text = module_text(_canonical(tree["path"]), tree["source"], tree.get("sourceMap"))
            sizes[text.hash] = len(text.source) + len(text.source_map or b"")
            if text.hash not in known:
                texts[text.hash] = text
            return {"path": text.path, "environment": tree.get("environment"), "hash": text.hash}

        request = {name: keep(value) for name, value in tree.items() if name != "adminKey"}
        app_definition = request["appDefinition"]
        unchanged = [
            {"path": path, "environment": one.get("environment"), "hash": deployed[path]}
            for one in app_definition.pop("unchangedModuleHashes", None) or ()
            if (path := _canonical(one["path"]))
        ]
        changed = app_definition.pop("changedModules", None) or app_definition.pop("functions", None) or []
        app_definition["changedModules"] = sorted([*changed, *unchanged], key=lambda one: str(one["path"]))
        modules = {"": _hashes(app_definition["changedModules"])}
        for definition in request.get("componentDefinitions") or ():
            modules[definition["definitionPath"]] = _hashes(definition.get("functions") or ())
        definitions = {one["componentPath"]: one["definitionPath"] for one in _components(app)}
        return PushRecord(orjson.dumps(request), modules, definitions, tuple(texts.values()), sizes)

    async def record(
        self,
        transaction: Transaction,
        record: PushRecord,
        push_id: str,
        diff: Mapping[str, Any],
        caller: Caller | None,
        message: str | None,
    ) -> None:
        """Add the entry of a push that *transaction* makes the deployed one; one that has been added before is not added again.

        :param diff: the answer of ``finish_push``.
        """
        system = transaction.system
        state = await read_state(transaction, _STATE_KEY) or {}
        first, last = state.get("first", 1), state.get("last", 0)
        sizes: list[int] = list(state.get("sizes") or ())
        before = await system.lookup(PUSH_HISTORY.name, "by_number", (last,))
        if before is not None and before[1]["pushId"] == push_id:
            return
        now_ms = self._now_ns() / 1_000_000
        known = _stored_modules(before[1]) if before is not None else {}
        await system.insert(
            PUSH_HISTORY.name,
            {
                "number": last + 1,
                "pushId": push_id,
                "time": now_ms,
                "client": caller.client if caller is not None else "unknown",
                "version": caller.version if caller is not None else None,
                "message": message[:_MAX_MESSAGE] if message else None,
                "changes": orjson.dumps(_changes(record, diff, known)).decode(),
                "request": record.request.decode(),
                "modules": orjson.dumps(record.modules).decode(),
            },
        )
        await self._store.keep_texts(transaction, record.texts, now_ms)
        present = set(_references(orjson.loads(before[1]["request"]))) if before is not None else set()
        sizes.append(sum(size for digest, size in record.sizes.items() if digest not in present))
        while last + 1 - first >= KEPT_PUSHES or (len(sizes) > _NEVER_DROPPED and sum(sizes[:-1]) > MAX_TEXT_BYTES):
            sizes = sizes[1:]
            old = await system.lookup(PUSH_HISTORY.name, "by_number", (first,))
            if old is not None:
                await system.delete(PUSH_HISTORY.name, old[0])
            first += 1
        await write_state(transaction, _STATE_KEY, first=first, last=last + 1, sizes=sizes)

    async def entries(self, transaction: Transaction, limit: int = KEPT_PUSHES) -> list[HistoryEntry]:
        """The newest first, at most *limit*."""
        state = await read_state(transaction, _STATE_KEY)
        if state is None:
            return []
        found: list[HistoryEntry] = []
        for number in range(state["last"], state["first"] - 1, -1):
            if len(found) == limit:
                break
            row = await transaction.system.lookup(PUSH_HISTORY.name, "by_number", (number,))
            if row is not None:
                found.append(_entry(row[1], current=number == state["last"]))
        return found

    async def request(self, transaction: Transaction, number: int) -> dict[str, Any]:
        """The request of an earlier push, complete with its texts, for ``start_push``.

        :raises NotFound: ``PushNotFound``: it is not in the history (any more).
        """
        row = await transaction.system.lookup(PUSH_HISTORY.name, "by_number", (number,))
        if row is None:
            raise NotFound("PushNotFound", f"There is no push {number} in the history of this deployment.")

        async def fill(tree: Any) -> Any:
            if isinstance(tree, list):
                return [await fill(one) for one in tree]
            if not isinstance(tree, dict):
                return tree
            if not _is_reference(tree):
                return {name: await fill(value) for name, value in tree.items()}
            text = await self._store.text(transaction, tree["hash"])
            if text is None:
                raise NotFound("PushNotFound", f"The text of {tree['path']} in push {number} is no longer there.")
            return {
                "path": tree["path"],
                "environment": tree["environment"],
                "source": text.source.decode(),
                "sourceMap": text.source_map.decode() if text.source_map is not None else None,
            }

        request: dict[str, Any] = await fill(orjson.loads(row[1]["request"]))
        return request

    async def texts_in_use(self, transaction: Transaction) -> set[str]:
        """Hashes of all texts that some entry names."""
        rows = await transaction.system.scan(PUSH_HISTORY.name, "by_number")
        return {digest for _, row in rows for digest in _references(orjson.loads(row["request"]))}


def _canonical(path: str) -> str:
    """*path* as modules have it; schemas and definitions may be called anything, since their place says what they are."""
    try:
        return parse_module_path(path)
    except InvalidPath:
        return path


def _is_reference(tree: Mapping[str, Any]) -> bool:
    return tree.keys() == {"path", "environment", "hash"}


def _references(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict) and _is_reference(tree):
        yield tree["hash"]
    elif isinstance(tree, dict | list):
        for one in tree.values() if isinstance(tree, dict) else tree:
            yield from _references(one)


def _hashes(modules: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {one["path"]: one["hash"] for one in modules}


def _components(app: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield app
    for child in app["childComponents"].values():
        yield from _components(child)


def _stored_modules(row: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = orjson.loads(row["modules"])
    return found


def _entry(row: Mapping[str, Any], *, current: bool) -> HistoryEntry:
    changes = orjson.loads(row["changes"])
    return HistoryEntry(row["number"], row["time"], row["client"], row["version"], row["message"], changes, current)


def _changes(record: PushRecord, diff: Mapping[str, Any], before: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """See :attr:`HistoryEntry.changes`. *before* are the modules of the push before, as :attr:`PushRecord.modules`."""
    components = {}
    for path, change in diff["componentDiffs"].items():
        known = before.get(record.definitions.get(path, path), {})
        pushed = change["moduleDiff"]["added"]
        components[path] = {
            "type": change["diffType"]["type"],
            "modules": {
                "added": [one for one in pushed if one not in known],
                "changed": [one for one in pushed if one in known],
                "removed": change["moduleDiff"]["removed"],
            },
            "schemaChanged": change["schemaDiff"] is not None,
            "indexes": {
                "added": [one["name"] for one in change["indexDiff"]["added_indexes"]],
                "removed": [one["name"] for one in change["indexDiff"]["removed_indexes"]],
            },
            "crons": dict(change["cronDiff"]),
        }
    auth = diff["authDiff"]
    return {"auth": {"added": len(auth["added"]), "removed": len(auth["removed"])}, "components": components}
