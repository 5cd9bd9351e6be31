"""The system tables: what they are called, their numbers, and the indexes of each.

They belong to the root component, keep fixed internal identities, and hold ordinary documents, so that a push commits, conflicts and
invalidates like any other write (A8). Their rows are outside schemas and transaction limits. Unlike a user index, a *unique* index of a system
table has its own fields alone as its key, so that one lookup is one point read.

Source: ``runtime.md`` section 5.4 (numbers).
"""

from __future__ import annotations

from typing import Final

import attrs

ROOT_COMPONENT: Final = 0

#: Tablet and index ids up to this one are kept for system tables; the counter of user tablets and indexes starts after it.
LAST_FIXED_ID: Final = 99_999

FIRST_USER_TABLE_NUMBER: Final = 10_001

#: User-visible read-only tables and their numbers. Each component has a tablet of its own for each, made with its first document
#: (``tables.ensure_virtual_table``), which holds exactly the documents that functions see.
VIRTUAL_TABLES: Final[dict[str, int]] = {"_scheduled_functions": 539, "_storage": 540}
VIRTUAL_NUMBERS: Final[dict[int, str]] = {number: name for name, number in VIRTUAL_TABLES.items()}


@attrs.frozen(slots=True)
class SystemIndex:
    """One index of a system table.

    :param id: internal index id.
    :param fields: top-level field names.
    :param unique: the key is the fields alone; otherwise creation time and id follow.
    """

    id: int
    name: str
    fields: tuple[str, ...]
    unique: bool


@attrs.frozen(slots=True)
class SystemTable:
    """One system table. Its tablet id is its number."""

    name: str
    number: int
    indexes: tuple[SystemIndex, ...]

    @property
    def tablet(self) -> int:
        """Internal tablet id."""
        return self.number

    def index(self, name: str) -> SystemIndex:
        """:raises KeyError: when there is no index *name*."""
        for index in self.indexes:
            if index.name == name:
                return index
        raise KeyError(f"{self.name}.{name}")


def _table(name: str, number: int, **indexes: tuple[str, ...]) -> SystemTable:
    """Indexes by name; a name that ends in ``_many`` is not unique and loses that ending."""
    made = []
    for ordinal, (index_name, fields) in enumerate(indexes.items()):
        many = index_name.endswith("_many")
        made.append(SystemIndex(number * 8 + ordinal, index_name.removesuffix("_many"), fields, unique=not many))
    return SystemTable(name, number, tuple(made))


#: ``{component, name, number, tablet, hidden}``; ``hidden`` is null for the table that the name means, else the tablet id.
TABLES: Final = _table(
    "_tables", 513, by_name=("component", "name", "hidden"), by_number=("component", "number", "hidden")
)
#: ``{tablet, index, name, kind, fields, spec, state, staged, slot}``; see ``catalog.IndexInfo``.
INDEX: Final = _table("_index", 514, by_name=("tablet", "name", "slot"))
#: ``{component, udf config …}``: server version, import-phase seed and time of the push.
UDF_CONFIG: Final = _table("_udf_config", 518, by_component=("component",))
AUTH: Final = _table("_auth", 519, by_component_many=("component",))
MODULES: Final = _table("_modules", 521, by_path=("component", "path"))
#: Module sources by the SHA-256 of their text.
SOURCE_PACKAGES: Final = _table("_source_packages", 524, by_sha256=("sha256",))
ENVIRONMENT_VARIABLES: Final = _table("_environment_variables", 525, by_name=("component", "name"))
CRON_JOBS: Final = _table("_cron_jobs", 531, by_name=("component", "name"))
#: ``{component, state, schema, error, table}``; ``state``: pending, validated, active, failed; ``schema``: JSON text.
SCHEMAS: Final = _table("_schemas", 532, by_state_many=("component", "state"))
#: What the scheduler knows of a ``_scheduled_functions`` document: ``{job, component, target, path, at, state, open, failures, orphaning}``;
#: ``job`` is the document's id; see ``application.scheduled_jobs``.
SCHEDULED_JOBS: Final = _table(
    "_scheduled_jobs",
    533,
    by_job=("job",),
    by_time_many=("state", "at"),
    by_component_many=("component", "open", "at"),
)
#: What users may not see of a ``_storage`` document: ``{component, document, uuid, blob}``; ``document`` is its id, ``uuid`` its name in
#: URLs (hyphenated), ``blob`` the key of its content in the blob store.
FILE_STORAGE: Final = _table(
    "_file_storage", 534, by_document=("component", "document"), by_uuid=("component", "uuid"), by_blob_many=("blob",)
)
#: When each cron job runs next, and whether it runs now: ``{component, name, at, previous, state}``; see ``application.cron_jobs``.
CRON_NEXT_RUN: Final = _table("_cron_next_run", 545, by_name=("component", "name"), by_time_many=("state", "at"))
#: The last runs of each cron job: ``{component, name, ts, udfPath, udfArgs, status, logLines, executionTime}``.
CRON_JOB_LOGS: Final = _table("_cron_job_logs", 546, by_name_many=("component", "name", "ts"))
#: Single values by name: ``{key, …}``.
BACKEND_STATE: Final = _table("_backend_state", 536, by_key=("key",))
#: ``{component, path, parent, name, state, definition, httpPrefix, httpMounts, env, args, envVars}``; see ``application.components``.
COMPONENTS: Final = _table("_components", 544, by_component=("component",), by_path=("path",))
#: ``{component, path}``: the functions that ever were deployed; the row's document id is what ``function://`` handles hold.
FUNCTION_HANDLES: Final = _table("_function_handles", 547, by_function=("component", "path"))
#: One row for each of the last finished pushes; see ``application.push_history``.
PUSH_HISTORY: Final = _table("_push_history", 548, by_number=("number",))
#: Types that schemas propose: ``{component, table, type, state, error, checked, after}``; see ``database.staged_validators``.
STAGED_VALIDATORS: Final = _table("_staged_validators", 550, by_table=("component", "table"), by_state_many=("state",))

SYSTEM_TABLES: Final[dict[str, SystemTable]] = {
    table.name: table
    for table in (
        TABLES,
        INDEX,
        UDF_CONFIG,
        AUTH,
        MODULES,
        SOURCE_PACKAGES,
        ENVIRONMENT_VARIABLES,
        CRON_JOBS,
        SCHEMAS,
        SCHEDULED_JOBS,
        FILE_STORAGE,
        CRON_NEXT_RUN,
        CRON_JOB_LOGS,
        BACKEND_STATE,
        COMPONENTS,
        FUNCTION_HANDLES,
        PUSH_HISTORY,
        STAGED_VALIDATORS,
    )
}
SYSTEM_TABLETS: Final[dict[int, SystemTable]] = {table.tablet: table for table in SYSTEM_TABLES.values()}

#: Tablets whose rows make the catalog.
CATALOG_TABLETS: Final = frozenset((TABLES.tablet, INDEX.tablet, SCHEMAS.tablet, COMPONENTS.tablet))
