"""Deployed modules as the CLI and dashboards see them. Source: ``system_functions.md`` sections 2 and 3."""

from __future__ import annotations

from typing import Any

import orjson

from convex_backend.application.push_store import StoredModule
from convex_backend.values.json_codec import from_json
from convex_backend.values.kinds import Value
from convex_backend.values.paths import FunctionPath

_PUBLIC: dict[str, Value] = {"kind": "public"}


def validator_value(text: str | None) -> Value:
    """A validator's JSON as a value; none accepts anything."""
    found: Value = {"type": "any"}
    if text is not None and text.strip() != "null":
        found = from_json(orjson.loads(text))
    return found


def api_spec(modules: dict[str, StoredModule]) -> list[Value]:
    """All functions and HTTP routes, in module path order."""
    found: list[Value] = []
    for path, module in modules.items():
        tree = module.tree()
        for function in tree.get("functions", ()):
            found.append(
                {
                    "identifier": f"{path}:{function['name']}",
                    "functionType": function["udfType"],
                    "visibility": function["visibility"] or _PUBLIC,
                    "args": validator_value(function["args"]),
                    "returns": validator_value(function["returns"]),
                }
            )
        for one in tree.get("httpRoutes") or ():
            route = one["route"]
            found.append({"functionType": "HttpAction", "method": route["method"], "path": route["path"]})
    return found


def describe(module: StoredModule) -> dict[str, Value]:
    """A module of ``modules:list``."""
    tree = module.tree()
    functions: list[Value] = []
    for function in tree["functions"]:
        entry: dict[str, Value] = {
            "name": function["name"],
            "udfType": function["udfType"],
            "visibility": function["visibility"] or _PUBLIC,
        }
        _add_line(entry, function["pos"])
        functions.append(entry)
    for one in tree["httpRoutes"] or ():
        route = one["route"]
        entry = {"name": f"{route['method']} {route['path']}", "udfType": "HttpAction", "visibility": _PUBLIC}
        _add_line(entry, one.get("pos"))
        functions.append(entry)
    found: dict[str, Value] = {"functions": functions, "sourcePackageId": module.hash}
    # Ours, for operators: why each run of the module needs a fresh context ("" if it does not).
    found["contextReuseRefusal"] = tree.get("realmRefusal", "not judged")
    if tree["cronSpecs"] is not None:
        found["cronSpecs"] = [[job["identifier"], cron_value(job["spec"])] for job in tree["cronSpecs"]]
    return found


def _add_line(entry: dict[str, Value], position: Any) -> None:
    if position is not None:
        entry["lineno"] = float(position["start_lineno"])


def cron_value(spec: dict[str, Any]) -> Value:
    """A cron's spec with its numbers as int64 and its arguments as bytes (a Python ``int`` is an int64)."""
    return {**spec, "udfArgs": spec["udfArgs"].encode()}


def listed(modules: dict[str, StoredModule]) -> list[Value]:
    """``[[path, module]…]`` without shared chunks."""
    return [[path, describe(module)] for path, module in modules.items() if module.analysis]


def find_function(modules: dict[str, StoredModule], path: FunctionPath) -> dict[str, Any] | None:
    """The analysis of one function."""
    module = modules.get(path.module)
    if module is None:
        return None
    functions: list[dict[str, Any]] = module.tree().get("functions", [])
    return next((function for function in functions if function["name"] == path.name), None)
