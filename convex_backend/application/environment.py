"""Environment variables: list, and change together or not at all.

Whoever read a variable recorded a point of its name (``directory.variable_point``), set or not, so only what read a changed name runs again.
Source: ``http_api.md`` section 6.2, ``runtime.md`` section 2.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from convex_backend.application.components import ROOT
from convex_backend.application.directory import Directory
from convex_backend.application.env_declarations import parse_declaration
from convex_backend.application.push_analysis import AnalysisPool, evaluate_auth
from convex_backend.application.push_request import AUTH_CONFIG
from convex_backend.application.push_store import PushStore
from convex_backend.application.system_commit import system_commit
from convex_backend.database.system_tables import ENVIRONMENT_VARIABLES, MODULES
from convex_backend.errors import BadRequest

if TYPE_CHECKING:
    from convex_backend.database.database import Database
    from convex_backend.database.system_rows import SystemRow
    from convex_backend.database.transaction import Transaction

MAX_NAME: Final = 256
MAX_VALUE_BYTES: Final = 8192
MAX_VARIABLES: Final = 512
MAX_TOTAL_BYTES: Final = 512 * 1024
_ATTEMPTS: Final = 8
_NAME: Final = re.compile(r"[a-zA-Z_]+[a-zA-Z0-9_]*")


class _NoTables:
    """Table names for validators that are known to hold no ids (``validators.TableNames``)."""

    def table_of_number(self, number: int, /) -> tuple[str, bool] | None:
        """Never asked."""
        return None


_NAMES: Final = _NoTables()


def missing_variables(declarations: Sequence[tuple[str, Mapping[str, Any]]], variables: Mapping[str, str]) -> list[str]:
    """Required variables that are not set, in the order of their declarations."""
    return [name for name, declared in declarations if not declared.get("optional") and name not in variables]


def check_values(declarations: Sequence[tuple[str, Mapping[str, Any]]], variables: Mapping[str, str]) -> None:
    """:raises BadRequest: ``InvalidEnvironmentVariable``: a value is not one that the app's declaration admits."""
    for name, declared in declarations:
        value = variables.get(name)
        if value is None:
            continue
        validator = parse_declaration(name, declared)
        if not validator.matches(value, _NAMES):
            # The value may be a secret: it is not shown.
            raise BadRequest(
                "InvalidEnvironmentVariable",
                f'The value of environment variable "{name}" does not match its declaration in convex.config.ts: '
                f"expected {validator.text}.",
            )


class EnvironmentVariables:
    """The variables of the app.

    :param analyzer: makes children that analyse, for ``auth.config.js``, which reads them.
    """

    def __init__(self, *, database: Database, store: PushStore, directory: Directory, analyzer: AnalysisPool) -> None:
        self._database = database
        self._store = store
        self._directory = directory
        self._analyzer = analyzer

    def list(self) -> dict[str, str]:
        """The user's variables by name, as durably stored."""
        state = self._directory.recent(self._database.committer.durable_ts)
        return dict(sorted(state.variables.get(ROOT, {}).items()))

    async def update(self, changes: Sequence[tuple[str, str | None]]) -> None:
        """Set or (``None``) delete variables, all or none.

        :raises BadRequest: with the codes of ``http_api.md`` section 6.2, or ``auth.config.js`` fails with the new values.
        :raises OccConflict: others kept changing them. Cancelling drops the answer; the change may still happen.
        """
        check_changes(changes, self._directory.built_in_variables)
        await system_commit(
            self._database,
            "environment variables",
            lambda transaction: self._apply(transaction, changes),
            attempts=_ATTEMPTS,
        )

    async def _apply(self, transaction: Transaction, changes: Sequence[tuple[str, str | None]]) -> None:
        rows = await read_rows(transaction)
        variables = _values(rows)
        before = dict(variables)
        for name, value in changes:
            if value is None:
                variables.pop(name, None)
            else:
                variables[name] = value
        if variables == before:
            return
        check_totals(variables)
        declarations = await self._store.env_declarations(transaction)
        missing = missing_variables(declarations, variables)
        removed = [name for name in missing if name in before]
        if removed:
            raise BadRequest(
                "RequiredEnvironmentVariable",
                f'Environment variable "{removed[0]}" is required by convex.config.ts and cannot be deleted.',
            )
        changed = [(name, declared) for name, declared in declarations if variables.get(name) != before.get(name)]
        check_values(changed, variables)
        await self._check_auth(transaction, variables)
        for name, value in variables.items():
            if name not in before:
                await transaction.system.insert(
                    ENVIRONMENT_VARIABLES.name, {"component": ROOT, "name": name, "value": value}
                )
            elif before[name] != value:
                await transaction.system.patch(ENVIRONMENT_VARIABLES.name, rows[name][0], {"value": value})
        for name in before:
            if name not in variables:
                await transaction.system.delete(ENVIRONMENT_VARIABLES.name, rows[name][0])

    async def _check_auth(self, transaction: Transaction, variables: Mapping[str, str]) -> None:
        """Evaluate ``auth.config.js`` again, and keep what it says now."""
        found = await transaction.system.lookup(MODULES.name, "by_path", (ROOT, AUTH_CONFIG))
        if found is None:
            return
        text = await self._store.text(transaction, found[1]["hash"])
        if text is None:
            return
        child = await self._analyzer.open_analysis([text])
        try:
            providers = await evaluate_auth(child, text.hash, {**self._directory.built_in_variables, **variables})
        finally:
            await child.close()
        await self._store.write_auth(transaction, ROOT, providers)


async def read_rows(transaction: Transaction) -> dict[str, SystemRow]:
    """The rows of the app's variables, by name in name order."""
    rows = await transaction.system.scan(ENVIRONMENT_VARIABLES.name, "by_name", (ROOT,))
    return {row["name"]: (row_id, row) for row_id, row in rows}


async def read_variables(transaction: Transaction) -> dict[str, str]:
    """The app's variables, in name order."""
    return _values(await read_rows(transaction))


def _values(rows: Mapping[str, SystemRow]) -> dict[str, str]:
    return {name: row["value"] for name, (_, row) in rows.items()}


def check_changes(changes: Sequence[tuple[str, str | None]], built_in: Mapping[str, str]) -> None:
    """:raises BadRequest: a name or value breaks a rule by itself."""
    seen: set[str] = set()
    for name, value in changes:
        if len(name) > MAX_NAME:
            raise BadRequest(
                "EnvironmentVariableNameTooLong",
                f"Environment variable name is too long: {len(name)} characters, maximum {MAX_NAME}.",
            )
        if not _NAME.fullmatch(name):
            raise BadRequest(
                "EnvironmentVariableNameInvalid",
                f'Environment variable name "{name}" is invalid: names start with a letter or underscore, and only '
                "contain letters, digits and underscores.",
            )
        if name in built_in:
            raise BadRequest(
                "EnvVarNameForbidden",
                f'Environment variable with name "{name}" is built-in and cannot be overridden',
            )
        if name in seen:
            raise BadRequest("EnvVarNameNotUnique", f'Environment variable with name "{name}" is given twice')
        seen.add(name)
        if value is not None and len(value.encode()) > MAX_VALUE_BYTES:
            raise BadRequest(
                "EnvironmentVariableValueTooLarge",
                f'The value of environment variable "{name}" is larger than {MAX_VALUE_BYTES} bytes.',
            )


def check_totals(variables: Mapping[str, str]) -> None:
    """:raises BadRequest: there are too many, or all together are too large."""
    if len(variables) > MAX_VARIABLES:
        raise BadRequest("EnvVarLimitMet", f"The limit of {MAX_VARIABLES} environment variables has been met.")
    total = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if total > MAX_TOTAL_BYTES:
        raise BadRequest(
            "EnvVarTotalSizeLimitMet",
            f"All environment variables together are larger than {MAX_TOTAL_BYTES} bytes.",
        )
