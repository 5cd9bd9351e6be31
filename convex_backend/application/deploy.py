"""Pushes: start, wait, finish (``push.md``).

::

    start_push ──► evaluate (nothing is written) ──► schema pending, new indexes building        old code serves
    wait_for_schema ──► existing rows checked, indexes built?                                    old code serves
    finish_push ──► one transaction: modules, config, auth, crons, schema, indexes               new code serves

What was evaluated stays here under the push's id, which the CLI echoes; nothing else of the echo is believed. An unfinished push leaves a pending
schema and building indexes, which the next push replaces.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from convex_backend.application import push_response
from convex_backend.application.component_push import (
    RACE_TEXT,
    SubmittedComponent,
    apply_components,
    schema_status,
    submit_components,
    withdraw_components,
)
from convex_backend.application.components import ACTIVE, ROOT
from convex_backend.application.directory import Directory
from convex_backend.application.environment import check_values, missing_variables, read_variables
from convex_backend.application.evaluation_memo import EvaluationMemo
from convex_backend.application.operations import check_operation
from convex_backend.application.push_analysis import AnalysisPool, Evaluated, Evaluation, NodeAnalysis
from convex_backend.application.push_diff import diff_json, index_changes
from convex_backend.application.push_request import PushedDefinition, PushRequest, read_push
from convex_backend.application.push_store import PushStore, StoredModule, UdfConfig
from convex_backend.application.schema_push import NO_COMPONENT, evaluate_changes
from convex_backend.application.system_commit import system_commit
from convex_backend.application.types import SYSTEM, Caller, Identity
from convex_backend.database.backfill import SchemaValidation
from convex_backend.database.schema_check import PENDING
from convex_backend.database.system_tables import CATALOG_TABLETS
from convex_backend.deferreds import Waiters, run_detached
from convex_backend.errors import BadRequest, OccConflict, Overloaded, Rerun

if TYPE_CHECKING:
    from convex_backend.application.push_history import PushHistory, PushRecord
    from convex_backend.database.committer import CommitEvent
    from convex_backend.database.database import Database
    from convex_backend.database.transaction import Transaction

T = TypeVar("T")

#: Pushes whose evaluation is kept, and the bytes of their module texts; the newest is always kept.
MAX_PUSHES: Final = 4
MAX_PUSH_BYTES: Final = 64 << 20
DEFAULT_WAIT_MS: Final = 10_000.0
MAX_WAIT_MS: Final = 60_000.0
_ATTEMPTS: Final = 8


@attrs.define(slots=True, eq=False)
class Push:
    """A push that was started.

    :param variables: the user's variables that it was evaluated with.
    :param components: its components as they were submitted, by path. :param validations: checks of existing rows under way.
    :param number: its place among all pushes, in the order in which they were submitted.
    :param record: what the history keeps of it, unless it will not be finished. :param caller: who finishes it, with which message.
    """

    id: str
    request: PushRequest
    evaluated: Evaluated
    variables: Mapping[str, str]
    components: dict[str, SubmittedComponent] = attrs.field(factory=dict)
    validations: list[SchemaValidation] = attrs.field(factory=list)
    number: int = 0
    record: PushRecord | None = None
    caller: Caller | None = None
    message: str | None = None

    @property
    def text_bytes(self) -> int:
        """Bytes of the module texts that it holds."""
        return sum(len(text.source) + len(text.source_map or b"") for text in self.evaluated.texts)


class Deploy:
    """The use cases of pushing. Requests and answers are the JSON trees of ``push.md``; all but the
    hashes are refused (``Forbidden``) to an *identity* that may not deploy.

    :param analyzer: makes children that analyse. :param clock: reactor or test clock.
    :param now_ns: wall clock; ``random_bytes``: source of push ids and seeds.
    :param history: records finished pushes. :param node: analyses ``"use node"`` modules.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        database: Database,
        store: PushStore,
        directory: Directory,
        analyzer: AnalysisPool,
        clock: IReactorTime,
        random_bytes: Callable[[int], bytes],
        now_ns: Callable[[], int],
        history: PushHistory | None = None,
        node: NodeAnalysis | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._directory = directory
        self._analyzer = EvaluationMemo(analyzer)
        self._clock = clock
        self._random_bytes = random_bytes
        self._now_ns = now_ns
        self._history = history
        self._node = node
        self._pushes: OrderedDict[str, Push] = OrderedDict()
        self._last_number = 0
        self._changed: Waiters[None] = Waiters()
        self._stopping = False
        database.committer.on_durable.append(self._on_durable)

    async def stop(self) -> None:
        """End checks of existing rows, and every wait. The database may be drained afterwards."""
        if self._on_durable in self._database.committer.on_durable:
            self._database.committer.on_durable.remove(self._on_durable)
        self._stopping = True
        for push in self._pushes.values():
            for validation in push.validations:
                await validation.stop()
        self._changed.fire(None)

    def _on_durable(self, events: list[CommitEvent]) -> None:
        if len(self._changed) and any(change.tablet in CATALOG_TABLETS for event in events for change in event.changes):
            self._changed.fire(None)

    # -- evaluation ---------------------------------------------------------------------------------

    async def get_config_hashes(self) -> dict[str, Any]:
        """What is deployed, so that the CLI sends only what changed (``push.md`` section 3)."""
        transaction = self._database.begin("query")
        try:
            modules = await self._store.modules(transaction, ROOT)
            config = await self._store.udf_config(transaction, ROOT)
        finally:
            transaction.close()
        return push_response.config_hashes(modules, config)

    async def _read(
        self, tree: Mapping[str, Any], *, to_deploy: bool = True
    ) -> tuple[PushRequest, dict[str, str], Evaluation]:
        """The request, the user's variables, and its evaluation, ready to run.

        :param to_deploy: whether what is evaluated may become the deployment. If not, import phases see the deployed clock and seed whatever has
            changed, so that an unchanged schema need not be evaluated again.
        """
        transaction = self._database.begin("query")
        try:
            deployed: dict[str, dict[str, StoredModule]] = {}
            present: dict[str, UdfConfig | None] = {}
            for component in (await self._store.components(transaction)).values():
                # All instances of a definition have the same code.
                if component.state == ACTIVE and component.definition not in deployed:
                    deployed[component.definition] = await self._store.modules(transaction, component.id)
                    present[component.definition] = await self._store.udf_config(transaction, component.id)
            variables = await read_variables(transaction)
        finally:
            transaction.close()
        request = read_push(tree, deployed.get("", {}))
        configs = {
            path: (None if to_deploy else present.get(path))
            or self._config(definition, deployed.get(path, {}), present.get(path))
            for path, definition in request.definitions.items()
        }
        built_in = self._directory.built_in_variables
        env = {**built_in, **variables}
        return (
            request,
            variables,
            Evaluation(request, deployed, env, built_in, configs, self._store.module_text, self._node),
        )

    def _config(
        self, pushed: PushedDefinition, deployed: Mapping[str, StoredModule], present: UdfConfig | None
    ) -> UdfConfig:
        """Clock and seed of the import phase; a push that changes nothing keeps the present ones."""
        if (
            present is not None
            and present.server_version == pushed.server_version
            and pushed.modules.keys() == deployed.keys()
            and all(module.hash == deployed[path].hash for path, module in pushed.modules.items())
        ):
            return present
        return UdfConfig(pushed.server_version, self._random_bytes(32), self._now_ns())

    async def evaluate_schema(self, tree: Mapping[str, Any], identity: Identity = SYSTEM) -> dict[str, Any]:
        """What a push would have to do to the data (``push.md`` section 13). Writes nothing.

        :raises BadRequest: the schema cannot be evaluated.
        """
        check_operation(identity, "Deploy")
        _, _, evaluation = await self._read(tree, to_deploy=False)
        evaluated = await evaluation.run_schemas(self._analyzer)
        tree_now = self._directory.recent(self._database.committer.durable_ts).components
        found: dict[str, Any] = {}
        for instance in evaluated.tree.walk():
            present = tree_now.by_path.get(instance.path)
            component = NO_COMPONENT if present is None else present.id
            schema = evaluated.schemas[instance.definition]
            found[instance.path] = await evaluate_changes(self._database, component, instance.definition, schema)
        deployed = {one.definition for one in tree_now.active()}
        return {
            "componentSchemaEvaluations": found,
            "newComponentDefinitions": [path for path in evaluated.definitions if path and path not in deployed],
        }

    async def evaluate_push(self, tree: Mapping[str, Any], identity: Identity = SYSTEM) -> dict[str, Any]:
        """Which indexes a push would change (``push.md`` section 13). Writes nothing."""
        check_operation(identity, "Deploy")
        _, _, evaluation = await self._read(tree)
        evaluated = await evaluation.run(self._analyzer)
        catalog = self._database.catalogs.newest
        tree_now = self._directory.recent(self._database.committer.durable_ts).components
        diffs: dict[str, Any] = {}
        for instance in evaluated.tree.walk():
            present = tree_now.by_path.get(instance.path)
            component = NO_COMPONENT if present is None else present.id
            schema = evaluated.definitions[instance.definition].schema
            diffs[instance.path] = diff_json(index_changes(catalog, component, schema))
        return {"schemaChange": push_response.schema_change(None, {}, {}, diffs)}

    # -- start --------------------------------------------------------------------------------------

    async def start_push(self, tree: Mapping[str, Any], identity: Identity = SYSTEM) -> dict[str, Any]:
        """Evaluate a push, submit its schema and begin to build its indexes (``push.md`` sections 4 to 9).

        :raises BadRequest: the code cannot be deployed; nothing was written.
        :raises Conflict: a module that was said to be unchanged is not what is deployed.
        """
        check_operation(identity, "Deploy")
        request, variables, evaluation = await self._read(tree)
        evaluated = await evaluation.run(self._analyzer)
        push = Push(self._random_bytes(16).hex(), request, evaluated, variables)
        await self._commit("start_push", lambda transaction: self._submit(transaction, push))
        self._keep(push)
        for one in push.components.values():
            info = self._database.catalogs.newest.schemas.get(one.schema_row) if one.schema_row is not None else None
            if info is not None and info.state == PENDING:
                validation = SchemaValidation(self._database, info.row_id)
                push.validations.append(validation)
                validation.start()
        response = push_response.start_push(push.id, evaluated, variables, _schema_change(push))
        if self._history is not None and not request.dry_run and not request.for_codegen:
            hashes = {path: module.hash for path, module in request.modules.items()}
            push.record = self._history.prepare(tree, hashes, response["app"], evaluated.texts)
        return response

    async def _submit(self, transaction: Transaction, push: Push) -> None:
        submit = not push.request.for_codegen
        self._last_number = max(self._last_number, await self._store.last_push(transaction)) + 1
        push.number = self._last_number
        push.components = await submit_components(
            transaction, self._store, push.evaluated, submit=submit, build=submit and not push.request.dry_run
        )

    def _keep(self, push: Push) -> None:
        """Hold *push* for its finish; let go of old ones."""
        self._pushes[push.id] = push
        total = sum(one.text_bytes for one in self._pushes.values())
        while len(self._pushes) > 1 and (len(self._pushes) > MAX_PUSHES or total > MAX_PUSH_BYTES):
            _, dropped = self._pushes.popitem(last=False)
            total -= dropped.text_bytes
            for validation in dropped.validations:
                run_detached("end of a schema check", validation.stop())

    def _find(self, change: Any) -> Push | None:
        """The push that an echoed ``schemaChange`` belongs to."""
        push_id = change.get("pushId") if isinstance(change, dict) else None
        return self._pushes.get(push_id) if isinstance(push_id, str) else None

    async def _commit(self, what: str, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run *body* in a transaction and commit it, again when others were faster. Cancelling drops the answer only.

        :raises BadRequest: ``ConcurrentPush``.
        """
        try:
            return await system_commit(self._database, what, body, attempts=_ATTEMPTS)
        except (OccConflict, Rerun):
            raise BadRequest(
                "ConcurrentPush", "The deployment kept changing while this push was being applied. Push again."
            ) from None

    # -- wait ---------------------------------------------------------------------------------------

    async def wait_for_schema(self, tree: Mapping[str, Any], identity: Identity = SYSTEM) -> dict[str, Any]:
        """How far a push's schema is; returns at once unless work is under way, else after at most ``timeoutMs`` (``push.md`` section 10)."""
        check_operation(identity, "Deploy")
        given = tree.get("timeoutMs")
        wait_ms = float(given) if isinstance(given, int | float) and not isinstance(given, bool) else DEFAULT_WAIT_MS
        deadline = self._clock.seconds() + min(max(wait_ms, 0.0), MAX_WAIT_MS) / 1000
        while True:
            if self._stopping:
                raise Overloaded("BackendIsNotRunning", "The server is stopping.")
            changed = self._changed.wait()
            try:
                status = await self._status(tree.get("schemaChange"), bool(tree.get("dryRun", False)))
                left = deadline - self._clock.seconds()
                if status["type"] != "inProgress" or left <= 0:
                    return status
                changed.addTimeout(left, self._clock)
                await changed
            except DeferredTimeoutError:
                continue
            finally:
                if not changed.called:
                    changed.addErrback(lambda _: None)
                    changed.cancel()

    async def _status(self, change: Any, dry_run: bool) -> dict[str, Any]:
        push = self._find(change)
        if push is None:
            return {"type": "raceDetected"}
        built = not (dry_run or push.request.dry_run or push.request.for_codegen)
        transaction = self._database.begin("query")
        try:
            if await self._store.last_push(transaction) > push.number:
                return {"type": "raceDetected"}
            return await schema_status(transaction, push.evaluated, push.components, count_indexes=built)
        finally:
            transaction.close()

    # -- finish -------------------------------------------------------------------------------------

    async def finish_push(
        self, tree: Mapping[str, Any], identity: Identity = SYSTEM, caller: Caller | None = None
    ) -> dict[str, Any]:
        """Make a started push the deployed one, all at once (``push.md`` section 11).

        :param caller: for the history.
        :raises BadRequest: it was overtaken, the environment changed, or a required variable is missing; nothing changed then.
        Cancelling drops the answer; the push may still be applied.
        """
        check_operation(identity, "Deploy")
        echo = tree.get("startPush")
        push = self._find(echo.get("schemaChange")) if isinstance(echo, dict) else None
        if bool(tree.get("dryRun", False)):
            if push is not None and push.request.dry_run:
                await self._commit("finish_push", lambda transaction: withdraw_components(transaction, push.components))
            return {"authDiff": {"added": [], "removed": []}, "definitionDiffs": {}, "componentDiffs": {}}
        if push is None or push.request.dry_run or push.request.for_codegen:
            raise BadRequest("RaceDetected", RACE_TEXT)
        message = tree.get("message")
        push.caller, push.message = caller, message if isinstance(message, str) else None
        response = await self._commit("finish_push", lambda transaction: self._apply(transaction, push))
        self._database.staged_validation.wake()
        # The texts are stored now; the rest stays, for a CLI that lost this answer and asks again.
        push.evaluated = attrs.evolve(push.evaluated, texts=())
        if push.record is not None:
            push.record = attrs.evolve(push.record, texts=())
        self._log.info(
            "deployed push {id}: {count} modules of the app, {components} components",
            id=push.id,
            count=len(push.evaluated.modules),
            components=len(push.components) - 1,
        )
        return response

    async def _apply(self, transaction: Transaction, push: Push) -> dict[str, Any]:
        evaluated = push.evaluated
        # Of two pushes the one that began later is the deployed one in the end, whichever is slower.
        if await self._store.last_push(transaction) > push.number:
            raise BadRequest("RaceDetected", RACE_TEXT)
        await self._store.write_last_push(transaction, push.number)
        await self._check_environment(transaction, push)
        now_ms = self._now_ns() / 1_000_000
        diffs = await apply_components(transaction, self._store, evaluated, push.components, now_ms)
        auth_added, auth_removed = await self._store.write_auth(transaction, ROOT, evaluated.auth)
        response = {
            "authDiff": {"added": auth_added, "removed": auth_removed},
            "definitionDiffs": {path: {} for path in evaluated.definitions},
            "componentDiffs": diffs,
        }
        if self._history is not None and push.record is not None:
            await self._history.record(transaction, push.record, push.id, response, push.caller, push.message)
        return response

    async def _check_environment(self, transaction: Transaction, push: Push) -> None:
        variables = await read_variables(transaction)
        if variables != push.variables:
            raise BadRequest("RaceDetected", "Environment variables have changed during the push. Push again.")
        declarations = push.evaluated.env_declarations
        missing = missing_variables(declarations, variables)
        if missing:
            raise BadRequest(
                "MissingEnvironmentVariables",
                f"Environment variables that convex.config.ts requires are not set: {', '.join(missing)}. "
                "Set them with `npx convex env set` or in the dashboard.",
            )
        check_values(declarations, variables)


def _schema_change(push: Push) -> dict[str, Any]:
    components = push.components
    return push_response.schema_change(
        push.id,
        {path: one.allocated for path, one in components.items() if one.allocated is not None},
        {path: one.schema_row for path, one in components.items()},
        {path: one.index_diff for path, one in components.items()},
    )
