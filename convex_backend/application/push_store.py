"""The rows behind a deployment's code: modules, their texts, udf config, auth providers, crons, components, function handles.

The only writer of ``_modules``, ``_source_packages``, ``_udf_config``, ``_auth``, ``_cron_jobs``, ``_components`` and ``_function_handles``.

Module texts are content-addressed and shared by deployments. A text that no module row names any more is kept for :data:`GRACE_MS`: running calls,
queries at an older timestamp and pushes under way may still need it. Source: ``push.md`` sections 3 and 11, ``runtime.md`` section 6.3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson

from convex_backend.application import cron_jobs
from convex_backend.application.components import Component
from convex_backend.database.backend_state import read_state, write_state
from convex_backend.database.system_tables import (
    AUTH,
    COMPONENTS,
    CRON_JOBS,
    FUNCTION_HANDLES,
    MODULES,
    SOURCE_PACKAGES,
    UDF_CONFIG,
)
from convex_backend.functions.module_text import ModuleText
from convex_backend.values.ids import encode_id
from convex_backend.values.paths import FunctionPath

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

#: How long an unused module text stays: longer than history is kept for queries at a timestamp.
GRACE_MS: Final = 3 * 86_400_000.0

_UNUSED_INDEX: Final = "unused_sources"
_LAST_PUSH: Final = "last_push"


@attrs.frozen(slots=True)
class StoredModule:
    """One row of ``_modules``.

    :param path: canonical, ``dir/mod.js``.
    :param environment: ``isolate`` or ``node``.
    :param sha256: the hash by which the CLI knows whether it changed; ``hash`` that of the runnable form.
    :param analysis: JSON text of what analysis found, see :meth:`tree`; empty for modules that are not analysed (``_deps``).
    """

    path: str
    environment: str
    sha256: str
    hash: str
    analysis: str

    def tree(self) -> dict[str, Any]:
        """``{functions, httpRoutes, cronSpecs, closure: [[path, hash]], dynamicClosure, importTime, importRandom, env, reuseContext,
        realmRefusal}``, as in ``docs/internals.md`` section 7; empty if not analysed."""
        found: dict[str, Any] = orjson.loads(self.analysis) if self.analysis else {}
        return found

    def to_row(self, component: int) -> dict[str, Any]:
        """The row without system fields."""
        return {
            "component": component,
            "path": self.path,
            "environment": self.environment,
            "sha256": self.sha256,
            "hash": self.hash,
            "analysis": self.analysis,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StoredModule:
        """Of a stored row."""
        return cls(row["path"], row["environment"], row["sha256"], row["hash"], row["analysis"])


@attrs.frozen(slots=True)
class UdfConfig:
    """What the import phase of a component's modules sees (``runtime.md`` section 6.3).

    :param server_version: of the npm package that pushed. :param seed: 32 bytes. :param time_ns: unix time.
    """

    server_version: str
    seed: bytes
    time_ns: int

    def to_row(self, component: int) -> dict[str, Any]:
        """The row without system fields."""
        return {
            "component": component,
            "serverVersion": self.server_version,
            "importPhaseRngSeed": self.seed,
            "importPhaseUnixTimestamp": self.time_ns,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> UdfConfig:
        """Of a stored row."""
        return cls(row["serverVersion"], row["importPhaseRngSeed"], row["importPhaseUnixTimestamp"])


@attrs.frozen(slots=True)
class ModuleChanges:
    """What a push changed in the modules of one component.

    :param added: paths of modules that are new or have a new text; ``removed`` of those that are gone.
    :param before: hashes of all its modules before, ``after`` afterwards.
    """

    added: list[str]
    removed: list[str]
    before: frozenset[str]
    after: frozenset[str]


class PushStore:
    """The deployed code as rows.

    :param database: started.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        #: Hashes of texts that somebody besides the module rows still needs (the history of pushes).
        self.texts_in_use: Callable[[Transaction], Awaitable[set[str]]] | None = None
        self._lent: list[Mapping[str, ModuleText]] = []

    async def module_text(self, hash: str) -> ModuleText:
        """The text of a module by the hash of its runnable form, for runner pools.

        :raises KeyError: there is none.
        """
        for texts in self._lent:
            if hash in texts:
                return texts[hash]
        # At the newest pending commit: a mutation's snapshot may see a push that is not durable yet, and texts never change.
        transaction = self._database.begin("system")
        try:
            text = await self.text(transaction, hash)
        finally:
            transaction.close()
        if text is None:
            raise KeyError(hash)
        return text

    @contextmanager
    def lent(self, texts: Iterable[ModuleText]) -> Iterator[None]:
        """While it is open, :meth:`module_text` knows *texts* too, which are part of no deployment."""
        known = {text.hash: text for text in texts}
        self._lent.append(known)
        try:
            yield
        finally:
            self._lent[:] = [one for one in self._lent if one is not known]

    async def text(self, transaction: Transaction, hash: str) -> ModuleText | None:
        """Likewise inside *transaction*; ``None`` when there is none."""
        found = await transaction.system.lookup(SOURCE_PACKAGES.name, "by_sha256", (hash,))
        if found is None:
            return None
        row = found[1]
        source_map = row["sourceMap"]
        return ModuleText(
            hash, row["path"], row["source"].encode(), source_map.encode() if source_map is not None else None
        )

    # -- reading ------------------------------------------------------------------------------------

    async def modules(self, transaction: Transaction, component: int) -> dict[str, StoredModule]:
        """All modules of a component by path, in path order."""
        rows = await transaction.system.scan(MODULES.name, "by_path", (component,))
        return {row["path"]: StoredModule.from_row(row) for _, row in rows}

    async def udf_config(self, transaction: Transaction, component: int) -> UdfConfig | None:
        """The config of the last push; ``None`` before the first."""
        found = await transaction.system.lookup(UDF_CONFIG.name, "by_component", (component,))
        return UdfConfig.from_row(found[1]) if found is not None else None

    async def auth_providers(self, transaction: Transaction, component: int) -> list[dict[str, Any]]:
        """The auth providers as ``appAuth`` shows them (``push.md`` section 7.1)."""
        rows = await transaction.system.scan(AUTH.name, "by_component", (component,))
        return [orjson.loads(row["provider"]) for _, row in rows]

    async def cron_jobs(self, transaction: Transaction, component: int) -> dict[str, str]:
        """Canonical JSON text of each cron job's spec, by identifier."""
        rows = await transaction.system.scan(CRON_JOBS.name, "by_name", (component,))
        return {row["name"]: row["spec"] for _, row in rows}

    async def env_declarations(self, transaction: Transaction) -> list[tuple[str, dict[str, Any]]]:
        """Environment variables that the app declares: name and ``{value: <validator text>, optional?}`` (``push.md`` section 7.2)."""
        found = await transaction.system.lookup(COMPONENTS.name, "by_path", ("",))
        text = found[1].get("envVars") if found is not None else None
        return [(name, declared) for name, declared in orjson.loads(text)] if text else []

    # -- writing ------------------------------------------------------------------------------------

    async def write_texts(self, transaction: Transaction, texts: Iterable[ModuleText]) -> list[str]:
        """Store the texts that are not stored yet. :returns: their hashes."""
        system = transaction.system
        added = []
        for text in texts:
            if await system.lookup(SOURCE_PACKAGES.name, "by_sha256", (text.hash,)) is None:
                await system.insert(SOURCE_PACKAGES.name, _text_row(text))
                added.append(text.hash)
        return added

    async def write_modules(
        self, transaction: Transaction, component: int, modules: Mapping[str, StoredModule]
    ) -> ModuleChanges:
        """Make *modules* the component's code. Rows that stay the same are not touched. See also :meth:`collect_texts`."""
        system = transaction.system
        rows = await system.scan(MODULES.name, "by_path", (component,))
        current = {row["path"]: (row_id, StoredModule.from_row(row)) for row_id, row in rows}
        before = frozenset(module.hash for _, module in current.values())
        added, removed = [], []
        for path, module in modules.items():
            known = current.pop(path, None)
            if known is None:
                await system.insert(MODULES.name, module.to_row(component))
                added.append(path)
            elif known[1] != module:
                await system.replace(MODULES.name, known[0], module.to_row(component))
                if known[1].hash != module.hash:
                    added.append(path)
        for path, (row_id, _) in current.items():
            await system.delete(MODULES.name, row_id)
            removed.append(path)
        return ModuleChanges(added, removed, before, frozenset(module.hash for module in modules.values()))

    async def write_handles(
        self, transaction: Transaction, component: int, modules: Mapping[str, StoredModule]
    ) -> None:
        """Give each function that has no handle yet its own. A handle is never taken away: it is the same one when a function comes back."""
        rows = await transaction.system.scan(FUNCTION_HANDLES.name, "by_function", (component,))
        known = {row["path"] for _, row in rows}
        for path, module in modules.items():
            for function in module.tree().get("functions", ()):
                canonical = FunctionPath.of(path, function["name"]).canonical
                if canonical not in known:
                    await transaction.system.insert(FUNCTION_HANDLES.name, {"component": component, "path": canonical})

    async def keep_texts(self, transaction: Transaction, texts: Iterable[ModuleText], now_ms: float) -> None:
        """Store texts that no module row names; they go when their grace is over and nobody has them :attr:`in use <texts_in_use>`."""
        added = await self.write_texts(transaction, texts)
        if not added:
            return
        await _write_unused(transaction, {**dict.fromkeys(added, now_ms), **await _read_unused(transaction)})

    async def collect_texts(self, transaction: Transaction, changes: Iterable[ModuleChanges], now_ms: float) -> None:
        """Note which texts are no longer used, and delete those whose grace is over.

        :param changes: of all components, since several may share a text.
        :param now_ms: wall clock.
        """
        every = list(changes)
        old = {digest for change in every for digest in change.before}
        new = {digest for change in every for digest in change.after}
        system = transaction.system
        noted = await _read_unused(transaction)
        unused = {digest: since for digest, since in noted.items() if digest not in new}
        for digest in sorted(old - new):
            unused.setdefault(digest, now_ms)
        over = [digest for digest, since in unused.items() if now_ms - since > GRACE_MS]
        in_use = await self.texts_in_use(transaction) if over and self.texts_in_use is not None else set()
        for digest in over:
            if digest not in in_use:
                del unused[digest]
                text = await system.lookup(SOURCE_PACKAGES.name, "by_sha256", (digest,))
                if text is not None:
                    await system.delete(SOURCE_PACKAGES.name, text[0])
        if unused != noted:
            await _write_unused(transaction, unused)

    async def write_udf_config(self, transaction: Transaction, component: int, config: UdfConfig) -> UdfConfig | None:
        """Set the config; an equal one is not written again. :returns: the one before."""
        found = await transaction.system.lookup(UDF_CONFIG.name, "by_component", (component,))
        if found is None:
            await transaction.system.insert(UDF_CONFIG.name, config.to_row(component))
            return None
        previous = UdfConfig.from_row(found[1])
        if previous != config:
            await transaction.system.replace(UDF_CONFIG.name, found[0], config.to_row(component))
        return previous

    async def write_auth(
        self, transaction: Transaction, component: int, providers: Iterable[dict[str, Any]]
    ) -> tuple[list[str], list[str]]:
        """Make *providers* the component's auth config. :returns: JSON texts of those added and removed."""
        rows = await transaction.system.scan(AUTH.name, "by_component", (component,))
        wanted = [orjson.dumps(provider, option=orjson.OPT_SORT_KEYS).decode() for provider in providers]
        present = [row["provider"] for _, row in rows]
        if present == wanted:
            return [], []
        for row_id, _ in rows:
            await transaction.system.delete(AUTH.name, row_id)
        for text in wanted:
            await transaction.system.insert(AUTH.name, {"component": component, "provider": text})
        return [text for text in wanted if text not in present], [text for text in present if text not in wanted]

    async def write_crons(
        self, transaction: Transaction, component: int, jobs: Mapping[str, str]
    ) -> tuple[list[str], list[str], list[str]]:
        """Make *jobs* (identifier → canonical JSON text of the spec) the component's crons. :returns: added, updated, deleted identifiers."""
        rows = await transaction.system.scan(CRON_JOBS.name, "by_name", (component,))
        current = {row["name"]: (row_id, row["spec"]) for row_id, row in rows}
        added, updated = [], []
        for name, spec in jobs.items():
            known = current.pop(name, None)
            if known is None:
                await transaction.system.insert(CRON_JOBS.name, {"component": component, "name": name, "spec": spec})
                added.append(name)
            elif known[1] != spec:
                await transaction.system.patch(CRON_JOBS.name, known[0], {"spec": spec})
                updated.append(name)
        for row_id, _ in current.values():
            await transaction.system.delete(CRON_JOBS.name, row_id)
        await cron_jobs.sync(transaction, component, jobs)
        return added, updated, sorted(current)

    async def last_push(self, transaction: Transaction) -> int:
        """The number of the push that is deployed; 0 before the first."""
        row = await read_state(transaction, _LAST_PUSH)
        return 0 if row is None else int(row["number"])

    async def write_last_push(self, transaction: Transaction, number: int) -> None:
        """Note which push is deployed."""
        await write_state(transaction, _LAST_PUSH, number=number)

    async def components(self, transaction: Transaction) -> dict[str, Component]:
        """All components by path, mounted or not."""
        rows = await transaction.system.scan(COMPONENTS.name, "by_path")
        return {row["path"]: Component.from_row(row) for _, row in rows}

    async def write_component(self, transaction: Transaction, component: Component) -> str:
        """Add or change a component's row; an equal one is not written again. :returns: its document id."""
        found = await transaction.system.lookup(COMPONENTS.name, "by_component", (component.id,))
        row = component.to_row()
        if found is None:
            row_id = await transaction.system.insert(COMPONENTS.name, row)
            return encode_id(COMPONENTS.number, row_id)
        if any(found[1].get(name) != value for name, value in row.items()):
            await transaction.system.replace(COMPONENTS.name, found[0], row)
        identifier: str = found[1]["_id"]
        return identifier


async def _read_unused(transaction: Transaction) -> dict[str, float]:
    """Since when (ms) texts have not been used by a module, by hash."""
    row = await read_state(transaction, _UNUSED_INDEX)
    noted: dict[str, float] = orjson.loads(row["texts"]) if row is not None else {}
    return noted


async def _write_unused(transaction: Transaction, noted: Mapping[str, float]) -> None:
    await write_state(transaction, _UNUSED_INDEX, texts=orjson.dumps(noted).decode())


def _text_row(text: ModuleText) -> dict[str, Any]:
    source_map = text.source_map
    return {
        "sha256": text.hash,
        "path": text.path,
        "source": text.source.decode(),
        "sourceMap": source_map.decode() if source_map is not None else None,
    }
