"""``convex-backend status``, ``history`` and ``rollback``: what is deployed on a running server, over its HTTP API."""

from __future__ import annotations

import argparse
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from convex_backend.service.configuration import fail

DEFAULT_URL: Final = "http://127.0.0.1:3210"
# Checking stored documents against an older schema may take its time; the server gives up after five minutes.
_TIMEOUT_SECONDS: Final = 310.0
_CHUNKS: Final = ("_deps/", "actions/_deps/", "_generated/")
_NAMES_SHOWN: Final = 3


def add_commands(
    commands: Any, add_key_options: Callable[[argparse.ArgumentParser], None], environ: Mapping[str, str]
) -> None:
    """Add the commands.

    :param commands: what ``add_subparsers`` gave. :param add_key_options: adds the options that say where the admin key comes from.
    """
    status = commands.add_parser(
        "status",
        help="say what is deployed on a running server",
        description="Say what is deployed on a running server: functions, tables, routes, crons, components, variables, and the last push.",
    )
    status.add_argument("--json", action="store_true", help="print everything as JSON")
    history = commands.add_parser(
        "history",
        help="list the pushes to a running server",
        description="List the last pushes to a running server, newest first: number, time, client, and what changed.",
    )
    history.add_argument("--limit", type=int, default=50, metavar="N", help="how many at most [default: 50]")
    history.add_argument("--json", action="store_true", help="print JSON, one push a line")
    rollback = commands.add_parser(
        "rollback",
        help="go back to an earlier push",
        description="Make an earlier push the deployed one again, if its schema fits the stored documents. Documents and environment "
        "variables stay as they are.",
    )
    rollback.add_argument(
        "push",
        type=int,
        nargs="?",
        metavar="ID",
        help="its number in the history [default: the push before the current]",
    )
    for command in (status, history, rollback):
        command.add_argument(
            "--url",
            default=environ.get("CONVEX_SELF_HOSTED_URL") or DEFAULT_URL,
            help=f"the server [env CONVEX_SELF_HOSTED_URL; default: {DEFAULT_URL}]",
        )
        command.add_argument(
            "--admin-key",
            metavar="KEY",
            default=environ.get("CONVEX_SELF_HOSTED_ADMIN_KEY") or None,
            help="instead of one made from the stored credentials [env CONVEX_SELF_HOSTED_ADMIN_KEY]",
        )
        add_key_options(command)


def run_status(arguments: argparse.Namespace, key: str) -> str:
    """What ``status`` prints."""
    deployed = _ask(arguments.url, key, "/api/deployed_app", None)
    if arguments.json:
        return json.dumps(deployed, indent=2)
    lines = [f"convex-backend {deployed['server_version']} at {arguments.url}"]
    lines += [_component_line(component) for component in deployed["components"]]
    if deployed["environment"]:
        lines.append(f"variables: {', '.join(deployed['environment'])}")
    push = deployed["push"]
    lines.append("nothing has been pushed yet" if push is None else f"last push: {describe(push).strip(' *')}")
    return "\n".join(lines)


def _component_line(component: Mapping[str, Any]) -> str:
    counted = [
        _count(len(component["functions"]), "function"),
        _count(len(component["http_routes"]), "HTTP route"),
        _count(len(component["crons"]), "cron job"),
        _count(len(component["tables"]), "table") + (" by a schema" if component["schema"] is not None else ""),
        _count(sum(not index["name"].startswith("by_creation") for index in component["indexes"]), "index", "indexes"),
    ]
    name = f"component {component['path']}" if component["path"] else "app"
    state = "" if component["state"] == "active" else f" ({component['state']})"
    version = f", made with convex {component['version']}" if component["version"] else ""
    return f"{name}{state}: {', '.join(counted)}{version}"


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def run_history(arguments: argparse.Namespace, key: str) -> str:
    """What ``history`` prints."""
    pushes = _ask(arguments.url, key, f"/api/push_history?limit={max(arguments.limit, 0)}", None)["pushes"]
    if arguments.json:
        return "\n".join(json.dumps(push) for push in pushes)
    if not pushes:
        return "Nothing has been pushed yet."
    return "\n".join(describe(push) for push in pushes)


def run_rollback(arguments: argparse.Namespace, key: str) -> str:
    """What ``rollback`` prints when it is done."""
    done = _ask(arguments.url, key, "/api/rollback", {"push": arguments.push})
    return f"Went back to push {done['push']}; this is push {done['current']['id']}: {_summary(done['current'])}"


#: What each command runs: given the arguments and an admin key, it returns what to print.
RUN: Final[dict[str, Callable[[argparse.Namespace, str], str]]] = {
    "status": run_status,
    "history": run_history,
    "rollback": run_rollback,
}


def describe(push: Mapping[str, Any]) -> str:
    """One push on one line, its message on a second."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(push["time_ms"] / 1000))
    client = push["client"] if push["version"] is None else f"{push['client']} {push['version']}"
    line = f"{'*' if push['current'] else ' '} {push['id']:>4}  {when}  {client}  {_summary(push)}"
    return line if not push["message"] else f"{line}\n        {' '.join(push['message'].split())}"


def _summary(push: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for path, change in push["changes"]["components"].items():
        found: list[str] = []
        for what, names in change["modules"].items():
            found += _names(what, [name for name in names if not name.startswith(_CHUNKS)])
        if change["schemaChanged"]:
            found.append("schema changed")
        for what, names in change["indexes"].items():
            found += _names(f"{what} index", names)
        for what, names in change["crons"].items():
            found += _names(f"{what} cron", names)
        if path and change["type"] != "modify":
            found.insert(0, change["type"])
        parts += [f"{path}: {one}" if path else one for one in found]
    auth = push["changes"]["auth"]
    if auth["added"] or auth["removed"]:
        parts.append("auth changed")
    return "; ".join(parts) or "no change"


def _names(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:_NAMES_SHOWN])
    return [f"{what} {shown}" + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")]


def _ask(url: str, key: str, path: str, body: Any) -> Any:
    """One request; a failure ends the process with one line."""
    if not url.startswith(("http://", "https://")):
        fail(f"--url (or CONVEX_SELF_HOSTED_URL) must be a URL such as {DEFAULT_URL}, not {url!r}")
    request = urllib.request.Request(
        url.rstrip("/") + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Convex {key}", "Convex-Client": "console-1.0.0"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode("utf-8", "replace")
        try:
            fail(str(json.loads(text)["message"]))
        except (ValueError, KeyError, TypeError):
            fail(f"{url} answered {error.code}")
    except (urllib.error.URLError, OSError, ValueError) as error:
        fail(f"{url} cannot be reached: {getattr(error, 'reason', error)}")
