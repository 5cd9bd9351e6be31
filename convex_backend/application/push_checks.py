"""Checks of what analysis found in pushed modules, and what is read out of it (``push.md`` section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from convex_backend.application.cron_schedule import parse_schedule
from convex_backend.application.env_declarations import PUSH_PREFIX
from convex_backend.application.push_faults import module_error
from convex_backend.application.push_request import NODE, PushedModule
from convex_backend.application.push_store import StoredModule
from convex_backend.errors import BadRequest
from convex_backend.values.kinds import InvalidValue
from convex_backend.values.paths import FunctionPath
from convex_backend.values.validators import InvalidValidator, parse_args, parse_returns


def is_unchanged(
    module: PushedModule, stored: StoredModule, modules: Mapping[str, PushedModule], package: str | None = None
) -> bool:
    """Whether evaluating *module* again could give nothing else than *stored*, among *modules*.

    :param package: id of the pushed ``"use node"`` code.
    """
    if (stored.hash, stored.environment) != (module.hash, module.environment):
        return False
    if not stored.analysis:
        return True
    tree = stored.tree()
    if stored.environment == NODE:
        # It may import any of the others, and external packages.
        return package is not None and tree.get("node", {}).get("package") == package
    if tree["env"] or tree["importTime"] or tree["importRandom"]:
        return False
    return all(name in modules and modules[name].hash == digest for name, digest in tree["dynamicClosure"])


def http_routes(modules: Mapping[str, StoredModule]) -> list[dict[str, str]] | None:
    """The routes of ``http.js`` as ``{path, method}``; ``None`` without one."""
    http = modules.get("http.js")
    routes = http.tree().get("httpRoutes") if http is not None else None
    if routes is None:
        return None
    return [{"path": one["route"]["path"], "method": one["route"]["method"]} for one in routes]


def check_functions(path: str, functions: list[dict[str, Any]]) -> None:
    """:raises BadRequest: a function's validators are not ones that the server understands (``runtime.md`` section 1.5)."""
    for function in functions:
        for member, what, read in (("args", "args", parse_args), ("returns", "return value", parse_returns)):
            text = function.get(member)
            if text is None:
                continue
            try:
                read(text)
            except (InvalidValidator, InvalidValue) as error:
                raise module_error(
                    path,
                    BadRequest(
                        "InvalidModules",
                        f"Error in {what} validator: {error.message}\nSee https://docs.convex.dev/functions/validation "
                        f"for docs on how to do {'argument' if member == 'args' else 'return value'} validation.",
                    ),
                ) from None


def check_node_functions(path: str, functions: list[dict[str, Any]]) -> None:
    """:raises BadRequest: a ``"use node"`` module has something else than actions (``runtime.md`` section 11)."""
    for function in functions:
        if function["udfType"] != "Action":
            raise BadRequest(
                "InvalidModules",
                f"{PUSH_PREFIX}`{function['name']}` defined in `{path}` is a {function['udfType']} function. Only actions can be "
                "defined in Node.js. See https://docs.convex.dev/functions/actions for more details.",
            )


def cron_spec(job: dict[str, Any]) -> dict[str, Any]:
    """A cron job of ``crons.js`` as it is stored: the canonical path, and the arguments as JSON text."""
    return {
        "identifier": job["identifier"],
        "spec": {
            "udfPath": FunctionPath.parse(job["name"]).canonical,
            "udfArgs": orjson.dumps(job["args"]).decode(),
            "cronSchedule": job["cronSchedule"],
        },
    }


def check_crons(modules: Mapping[str, StoredModule]) -> None:
    """:raises BadRequest: a cron job has a pattern that is malformed or never matches, or schedules what is not a mutation or action of the app."""
    for module in modules.values():
        for job in module.tree().get("cronSpecs") or ():
            try:
                parse_schedule(job["spec"]["cronSchedule"])
            except BadRequest as error:
                raise module_error(module.path, error) from None
            path = FunctionPath.parse(job["spec"]["udfPath"])
            target = modules.get(path.module)
            functions = target.tree().get("functions", ()) if target is not None else ()
            kinds = [function["udfType"] for function in functions if function["name"] == path.name]
            text = f"The cron job '{job['identifier']}' schedules"
            if not kinds:
                raise BadRequest(
                    "InvalidModules", f"{PUSH_PREFIX}{text} a function that does not exist: {path.stripped}"
                )
            if kinds[0] == "Query":
                raise BadRequest(
                    "InvalidModules",
                    f"{PUSH_PREFIX}{text} a query function, only mutations and actions can be scheduled: {path.stripped}",
                )
