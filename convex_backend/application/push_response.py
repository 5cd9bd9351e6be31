"""The answers of a push, in the shapes that the CLI checks (``push.md`` sections 3, 7.4 and 8)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from convex_backend.application.push_analysis import Evaluated
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


def schema_change(push_id: str | None, schema_row: bytes | None, index_diff: dict[str, Any]) -> dict[str, Any]:
    """``schemaChange``, by which the CLI names the push afterwards."""
    ids = {} if schema_row is None else {"": encode_id(SCHEMAS.number, schema_row)}
    change: dict[str, Any] = {"allocatedComponentIds": {}, "schemaIds": ids, "indexDiffs": {"": index_diff}}
    return change if push_id is None else {**change, "pushId": push_id}


def start_push(
    push_id: str,
    evaluated: Evaluated,
    variables: Mapping[str, str],
    schema_row: bytes | None,
    index_diff: dict[str, Any],
) -> dict[str, Any]:
    """The answer of ``start_push``."""
    return {
        "pushId": push_id,
        "environmentVariables": dict(variables),
        "externalDepsId": None,
        "componentDefinitionPackages": {"": _package(evaluated.modules)},
        "appAuth": evaluated.auth,
        "analysis": {
            "": {
                "definition": evaluated.definition,
                "schema": evaluated.schema.to_json() if evaluated.schema is not None else None,
                "functions": {
                    path: _functions(module) for path, module in evaluated.modules.items() if module.analysis
                },
                "udfConfig": _udf_config(evaluated.udf_config),
            }
        },
        "app": {
            "definitionPath": "",
            "componentPath": "",
            "httpPrefix": None,
            "args": {},
            "env": {},
            "childComponents": {},
            "httpRoutes": {"httpModuleRoutes": _http_routes(evaluated.modules), "mounts": []},
            "exports": {},
        },
        "schemaChange": schema_change(push_id, schema_row, index_diff),
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


def _http_routes(modules: Mapping[str, StoredModule]) -> list[dict[str, str]] | None:
    http = modules.get("http.js")
    routes = http.tree().get("httpRoutes") if http is not None else None
    if routes is None:
        return None
    return [{"path": one["route"]["path"], "method": one["route"]["method"]} for one in routes]


def cron_rows(modules: Mapping[str, StoredModule]) -> dict[str, str]:
    """Canonical JSON text of each cron job's spec, by identifier."""
    crons = modules.get("crons.js")
    jobs = (crons.tree().get("cronSpecs") if crons is not None else None) or []
    return {job["identifier"]: orjson.dumps(job["spec"], option=orjson.OPT_SORT_KEYS).decode() for job in jobs}
