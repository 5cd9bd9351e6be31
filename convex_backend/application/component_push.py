"""What a push does to each component: its schema and indexes while it waits, its code when it is finished, and its end when it is left out.

Everything here is part of the caller's transaction. Source: ``push.md`` sections 7 to 11, ``runtime.md`` section 9.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from convex_backend.application import push_response
from convex_backend.application.components import ACTIVE, NEW, ROOT, UNMOUNTED, Component
from convex_backend.application.env_declarations import declarations
from convex_backend.application.push_diff import diff_json, index_changes
from convex_backend.application.push_store import ModuleChanges
from convex_backend.application.schema_push import (
    NO_COMPONENT,
    activate_schema,
    index_progress,
    prepare_indexes,
    submit_schema,
    switch_indexes,
)
from convex_backend.database.schema_check import ACTIVE as ACTIVE_SCHEMA
from convex_backend.database.schema_check import FAILED, PENDING
from convex_backend.database.system_tables import COMPONENTS, SCHEMAS
from convex_backend.database.tables import drop_table
from convex_backend.errors import BadRequest

if TYPE_CHECKING:
    from convex_backend.application.push_analysis import Evaluated, EvaluatedDefinition
    from convex_backend.application.push_components import Instance
    from convex_backend.application.push_store import PushStore
    from convex_backend.database.transaction import Transaction

RACE_TEXT: Final = "This push was overtaken by another one, or the server has restarted since it began. Push again."
_NO_INDEXES: Final[dict[str, list[Any]]] = {"added_indexes": [], "removed_indexes": []}


@attrs.frozen(slots=True, eq=False)
class SubmittedComponent:
    """One component of a push that was started.

    :param component: internal id; ``NO_COMPONENT`` when the push is only tried and the component does not exist yet.
    :param allocated: document id of its row, if this push, or an abandoned one before it, is the first to mount it; else ``None``.
    :param schema_row: internal id of the submitted schema's row. :param index_diff: what the schema changes, as first shown.
    """

    instance: Instance
    component: int
    allocated: str | None
    schema_row: bytes | None
    index_diff: dict[str, list[dict[str, Any]]]


Submitted = Mapping[str, SubmittedComponent]


async def submit_components(
    transaction: Transaction, store: PushStore, evaluated: Evaluated, *, submit: bool, build: bool
) -> dict[str, SubmittedComponent]:
    """Submit the schemas of all components, unless only code is generated (*submit*): that must not overtake a push that is under way. Give new ones
    their ids and begin to build indexes, if the push is meant (*build*).

    :returns: by path of the component, parents first.
    """
    await transaction.ensure_begun()
    known = await store.components(transaction)
    wanted = {instance.path for instance in evaluated.tree.walk()}
    for path, component in known.items():
        if submit and path not in wanted:
            await _let_go(transaction, component)
    found: dict[str, SubmittedComponent] = {}
    ids: dict[str, int] = {}
    for instance in evaluated.tree.walk():
        schema = evaluated.definitions[instance.definition].schema
        present = known.get(instance.path)
        allocated: str | None = None
        if present is None and build:
            parent = ids[instance.path.rpartition("/")[0]]
            present = Component(
                transaction.new_metadata_id(), instance.path, parent, instance.name, NEW, instance.definition
            )
        if present is not None and present.state == NEW and build:
            allocated = await store.write_component(transaction, present)
        number = present.id if present is not None else NO_COMPONENT
        ids[instance.path] = number
        diff = diff_json(index_changes(transaction.catalog, number, schema))
        row = None
        if submit and number != NO_COMPONENT:
            row = await submit_schema(transaction, number, schema, empty=present is None or present.state == NEW)
            if build:
                await prepare_indexes(transaction, number, schema)
        found[instance.path] = SubmittedComponent(instance, number, allocated, row, diff)
    return found


async def _let_go(transaction: Transaction, component: Component) -> None:
    """Take back what an abandoned push has left of a component that is not wanted."""
    await submit_schema(transaction, component.id, None)
    if component.state == NEW:
        await erase_component(transaction, component.id)


async def erase_component(transaction: Transaction, component: int) -> None:
    """Delete a component's row, schemas and tables. Its documents are removed afterwards, in steps (``tables.drop_table``)."""
    await transaction.ensure_begun()
    for info in list(transaction.catalog.schemas.values()):
        if info.component == component:
            await transaction.system.delete(SCHEMAS.name, info.row_id)
    for table in list(transaction.catalog.by_tablet.values()):
        if table.component == component:
            await drop_table(transaction, table)
    found = await transaction.system.lookup(COMPONENTS.name, "by_component", (component,))
    if found is not None:
        await transaction.system.delete(COMPONENTS.name, found[0])


async def withdraw_components(transaction: Transaction, submitted: Submitted) -> None:
    """Take back the schemas that a dry run submitted, so that writes are not checked against them any longer."""
    for one in submitted.values():
        if one.schema_row is not None:
            row = await transaction.system.get(SCHEMAS.name, one.schema_row)
            if row is not None and row[1]["state"] != ACTIVE_SCHEMA:
                await transaction.system.delete(SCHEMAS.name, one.schema_row)


async def schema_status(
    transaction: Transaction, evaluated: Evaluated, submitted: Submitted, *, count_indexes: bool
) -> dict[str, Any]:
    """The answer of ``wait_for_schema`` as of *transaction* (``push.md`` section 10).

    :param count_indexes: whether indexes are being built for this push.
    """
    await transaction.ensure_begun()
    progress: dict[str, Any] = {}
    complete = True
    for path, one in submitted.items():
        pending = False
        if one.schema_row is not None:
            row = await transaction.system.get(SCHEMAS.name, one.schema_row)
            if row is None:
                return {"type": "raceDetected"}
            if row[1]["state"] == FAILED:
                return {
                    "type": "failed",
                    "error": row[1]["error"],
                    "componentPath": path,
                    "tableName": row[1]["table"],
                }
            pending = row[1]["state"] == PENDING
        schema = evaluated.definitions[one.instance.definition].schema
        done, total = index_progress(transaction.catalog, one.component, schema)
        if not count_indexes:
            done = total
        complete = complete and not pending and done == total
        progress[path] = {"schemaValidationComplete": not pending, "indexesComplete": done, "indexesTotal": total}
    return {"type": "complete"} if complete else {"type": "inProgress", "components": progress}


async def apply_components(
    transaction: Transaction, store: PushStore, evaluated: Evaluated, submitted: Submitted, now_ms: float
) -> dict[str, Any]:
    """Make the pushed tree the deployed one: code, schemas, indexes, crons of all components; those that are left out are unmounted.

    :param now_ms: wall clock, for the grace of unused texts.
    :returns: ``componentDiffs`` (``push.md`` section 11), by path.
    :raises BadRequest: another push was faster, or a schema or an index is not ready.
    """
    known = await store.components(transaction)
    await store.write_texts(transaction, evaluated.texts)
    diffs: dict[str, Any] = {}
    changes: list[ModuleChanges] = []
    ids = {path: one.component for path, one in submitted.items()}
    for path, one in submitted.items():
        present = known.get(path)
        if present is None or present.id != one.component:
            raise BadRequest("RaceDetected", RACE_TEXT)
        definition = evaluated.definitions[one.instance.definition]
        diff, change = await _apply_component(transaction, store, one, definition, present)
        await store.write_component(transaction, _component(one, definition, ids))
        diffs[path] = diff
        changes.append(change)
    for path, component in known.items():
        if path not in submitted and component.state == ACTIVE:
            diffs[path], change = await _unmount(transaction, store, component)
            changes.append(change)
    await store.collect_texts(transaction, changes, now_ms)
    return diffs


def _component(one: SubmittedComponent, definition: EvaluatedDefinition, ids: Mapping[str, int]) -> Component:
    instance = one.instance
    parent = None if instance.name is None else ids[instance.path.rpartition("/")[0]]
    return Component(
        id=one.component,
        path=instance.path,
        parent=parent,
        name=instance.name,
        state=ACTIVE,
        definition=instance.definition,
        http_prefix=instance.http_prefix,
        mounts=instance.mounts,
        env=instance.env,
        args=instance.args,
        declarations=tuple(declarations(definition.definition)),
    )


async def _apply_component(
    transaction: Transaction,
    store: PushStore,
    one: SubmittedComponent,
    definition: EvaluatedDefinition,
    present: Component,
) -> tuple[dict[str, Any], ModuleChanges]:
    component = one.component
    previous_schema, next_schema = await activate_schema(transaction, component, one.schema_row)
    await switch_indexes(transaction, component, definition.schema)
    previous = await store.write_udf_config(transaction, component, definition.udf_config)
    change = await store.write_modules(transaction, component, definition.modules)
    await store.write_handles(transaction, component, definition.modules)
    crons = await store.write_crons(transaction, component, push_response.cron_rows(definition.modules))
    version = definition.udf_config.server_version
    kind = {NEW: "create", UNMOUNTED: "remount", ACTIVE: "modify"}[present.state]
    if component == ROOT and previous is None:
        kind = "create"
    return {
        "diffType": {"type": kind},
        "moduleDiff": {"added": change.added, "removed": change.removed},
        "udfConfigDiff": None
        if previous is None or previous.server_version == version
        else {"previous_version": previous.server_version, "next_version": version},
        "cronDiff": dict(zip(("added", "updated", "deleted"), crons, strict=True)),
        "indexDiff": {name: one.index_diff[name] for name in _NO_INDEXES},
        "schemaDiff": None
        if previous_schema == next_schema
        else {"previous_schema": previous_schema, "next_schema": next_schema},
    }, change


async def _unmount(
    transaction: Transaction, store: PushStore, component: Component
) -> tuple[dict[str, Any], ModuleChanges]:
    """Take a component's functions and crons away; its tables, with schema and indexes, stay as they are."""
    change = await store.write_modules(transaction, component.id, {})
    crons = await store.write_crons(transaction, component.id, {})
    await store.write_component(transaction, attrs.evolve(component, state=UNMOUNTED))
    return {
        "diffType": {"type": "unmount"},
        "moduleDiff": {"added": [], "removed": change.removed},
        "udfConfigDiff": None,
        "cronDiff": dict(zip(("added", "updated", "deleted"), crons, strict=True)),
        "indexDiff": dict(_NO_INDEXES),
        "schemaDiff": None,
    }, change
