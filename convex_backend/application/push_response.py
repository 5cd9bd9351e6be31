"""The answers of a push, in the shapes that the CLI checks (``push.md`` sections 3 and 8)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from convex_backend.application.push_analysis import Evaluated, EvaluatedDefinition
from convex_backend.application.push_store import StoredModule, UdfConfig
from convex_backend.database.system_tables import SCHEMAS
from convex_backend.values.ids import encode_id


def config_hashes(modules: Mapping[str, StoredModule], config: UdfConfig | None) -> dict[str, Any]:
    """The answer of ``get_config_hashes``. A ``nodeVersion`` of null would show as a change in the CLI's diff: it is left out."""
    return {
        "config": {"functions": "convex/", "authInfo": []},
        "moduleHashes": [
            {"path": module.path, "hash": module.sha256, "environment": module.environment}
            for module in modules.values()
        ],
        "udfServerVersion": config.server_version if config is not None else None,
    }


def schema_change(
    push_id: str | None,
    component_ids: Mapping[str, str],
    schema_rows: Mapping[str, bytes | None],
    index_diffs: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """``schemaChange``, by which the CLI names the push afterwards.

    :param component_ids: document ids of components that this push is the first to mount, by path.
    :param schema_rows: internal ids of the submitted schemas by path of the component. :param index_diffs: likewise.
    """
    ids = {path: encode_id(SCHEMAS.number, row) for path, row in schema_rows.items() if row is not None}
    change: dict[str, Any] = {
        "allocatedComponentIds": dict(component_ids),
        "schemaIds": ids,
        "indexDiffs": dict(index_diffs),
    }
    return change if push_id is None else {**change, "pushId": push_id}


def start_push(
    push_id: str, evaluated: Evaluated, variables: Mapping[str, str], change: Mapping[str, Any]
) -> dict[str, Any]:
    """The answer of ``start_push``.

    :param change: of :func:`schema_change`.
    """
    return {
        "pushId": push_id,
        "environmentVariables": dict(variables),
        "externalDepsId": evaluated.external_deps_id,
        "componentDefinitionPackages": {path: _package(one.modules) for path, one in evaluated.definitions.items()},
        "appAuth": evaluated.auth,
        "analysis": {path: _analysis(one) for path, one in evaluated.definitions.items()},
        "app": evaluated.tree.to_json(),
        "schemaChange": dict(change),
    }


def _analysis(evaluated: EvaluatedDefinition) -> dict[str, Any]:
    return {
        "definition": evaluated.definition,
        "schema": evaluated.schema.to_json() if evaluated.schema is not None else None,
        "functions": {path: _functions(module) for path, module in evaluated.modules.items() if module.analysis},
        "udfConfig": _udf_config(evaluated.udf_config),
    }


def _package(modules: Mapping[str, StoredModule]) -> dict[str, Any]:
    digest = hashlib.sha256("".join(module.hash for module in modules.values()).encode()).hexdigest()
    return {"storageKey": digest, "sha256": digest, "externalPackageId": None, "nodeVersion": None}


def _functions(module: StoredModule) -> dict[str, Any]:
    tree = module.tree()
    specs = tree["cronSpecs"]
    return {
        "functions": tree["functions"],
        "httpRoutes": tree["httpRoutes"],
        "cronSpecs": specs if specs is None else [_cron_spec(one) for one in specs],
        "sourceMapped": None,
    }


def _cron_spec(job: dict[str, Any]) -> dict[str, Any]:
    spec = job["spec"]
    args = {"$bytes": base64.b64encode(spec["udfArgs"].encode()).decode()}
    return {"identifier": job["identifier"], "spec": {**spec, "udfArgs": args}}


def _udf_config(config: UdfConfig) -> dict[str, Any]:
    return {
        "serverVersion": config.server_version,
        "importPhaseRngSeed": {"$bytes": base64.b64encode(config.seed).decode()},
        "importPhaseUnixTimestamp": {
            "$integer": base64.b64encode(config.time_ns.to_bytes(8, "little", signed=True)).decode()
        },
    }


def cron_rows(modules: Mapping[str, StoredModule]) -> dict[str, str]:
    """Canonical JSON text of each cron job's spec, by identifier."""
    crons = modules.get("crons.js")
    jobs = (crons.tree().get("cronSpecs") if crons is not None else None) or []
    return {job["identifier"]: orjson.dumps(job["spec"], option=orjson.OPT_SORT_KEYS).decode() for job in jobs}
