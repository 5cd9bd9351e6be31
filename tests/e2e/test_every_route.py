"""Good input for every route of the route table, against a real server. What bad input gets is in ``tests/web/test_every_route.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from convex_backend.web.admin_api import NOT_YET
from convex_backend.web.routes import FAMILIES
from tests.e2e.harness import ADMIN_KEY, Server, running

CALL = {"path": "messages:list", "args": [{}], "format": "json"}
SEND = {"path": "messages:send", "args": [{"author": "Ada", "body": "hi"}]}
MODULE = {"path": "one.js", "source": "export const a = 1;", "sourceMap": None, "environment": "isolate"}
PUSH = {
    "functions": "convex/",
    "dryRun": True,
    "appDefinition": {
        "definition": None,
        "dependencies": [],
        "schema": None,
        "changedModules": [MODULE],
        "unchangedModuleHashes": [],
        "udfServerVersion": "1.48.0",
    },
    "componentDefinitions": [],
}
LOG = "?cursor=0"

#: Query string, body, and the status that a good request gets, by method and path of the table.
GOOD: dict[str, tuple[str, Any, int]] = {
    "POST /api/query": ("", CALL, 200),
    "GET /api/query": ("?path=messages:list&args=%7B%7D", None, 200),
    "POST /api/mutation": ("", SEND, 200),
    "POST /api/action": ("", {"path": "messages:nothing", "args": {}}, 200),
    "POST /api/function": ("", CALL, 200),
    "POST /api/run/<path:name>": ("messages/list", {"args": {}}, 200),
    "POST /api/run_test_function": ("", {"bundle": {"path": "q.js", "source": "export default 1;"}, "args": {}}, 200),
    "POST /api/query_ts": ("", b"", 200),
    "POST /api/query_batch": ("", {"queries": [CALL, CALL]}, 200),
    "POST /api/query_at_ts": ("", {**CALL, "ts": "now"}, 200),
    "GET /": ("", None, 200),
    "GET /version": ("", None, 200),
    "GET /instance_version": ("", None, 200),
    "GET /instance_name": ("", None, 200),
    "GET /.well-known/jwks.json": ("", None, 200),
    "POST /echo": ("", b"\x00\xff", 200),
    "GET /metrics": ("", None, 200),
    "POST /api/get_config_hashes": ("", {"version": "1.48.0"}, 200),
    "POST /api/deploy2/start_push": ("", PUSH, 200),
    "POST /api/deploy2/evaluate_push": ("", PUSH, 200),
    "POST /api/deploy2/evaluate_schema": ("", PUSH, 200),
    "POST /api/deploy2/wait_for_schema": ("", {"schemaChange": {"pushId": "none"}}, 200),
    "POST /api/deploy2/finish_push": ("", {"startPush": {}, "dryRun": True}, 200),
    "POST /api/deploy2/report_push_completed": ("", {"spans": []}, 200),
    "POST /api/deploy": ("", {"functions": {"two.js": "export const a = 2;"}}, 200),
    "GET /api/push_history": ("?limit=5", None, 200),
    "GET /api/deployed_app": ("", None, 200),
    "POST /api/rollback": ("", {"push": 1}, 200),
    "GET /demo": ("", None, 200),
    "GET /demo/page.js": ("", None, 200),
    "GET /demo/convex.js": ("", None, 200),
    "GET /demo/style.css": ("", None, 200),
    "GET /api/stream_function_logs": (LOG, None, 200),
    "GET /api/app_metrics/stream_function_logs": (LOG, None, 200),
    "GET /api/stream_udf_execution": (LOG, None, 200),
    "GET /api/app_metrics/stream_udf_execution": (LOG, None, 200),
    "POST /api/storage/upload": ("?token=none", b"", 401),
    "GET /api/storage/<path:name>": ("01234567-89ab-cdef-0123-456789abcdef", None, 404),
    "POST /api/cancel_job": ("", {"id": "0123456789abcdefghjkmnpqrstvwxyz"}, 400),
    "POST /api/cancel_all_jobs": ("", {}, 200),
    "POST /api/delete_scheduled_functions_table": ("", {}, 200),
    "POST /api/v1/pause_deployment": ("", b"", 200),
    "POST /api/v1/unpause_deployment": ("", b"", 200),
    "POST /api/delete_tables": ("", {"tableNames": []}, 200),
    "POST /api/delete_component": ("", {"componentId": "none"}, 400),
    "GET /api/check_admin_key": ("", None, 200),
    "GET /api/v1/get_canonical_urls": ("", None, 200),
    "GET /api/v1/deployment_info": ("", None, 200),
    "GET /api/list_environment_variables": ("", None, 200),
    "GET /api/v1/list_environment_variables": ("", None, 200),
    "POST /api/update_environment_variables": ("", {"changes": [{"name": "A", "value": "1"}]}, 200),
    "POST /api/v1/update_environment_variables": ("", {"changes": [{"name": "A", "value": None}]}, 200),
}
#: What is known and not offered answers 400 at once.
UNAVAILABLE = {f"{method} {path}" for routes in NOT_YET.values() for method, path in routes}
TABLE = dict.fromkeys(f"{route.methods[0]} {route.path}" for family in FAMILIES for route in family.app.routes)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the demo app."""
    with running(tmp_path_factory.mktemp("routes"), "--demo") as server:
        yield server


def ask(server: Server, name: str) -> tuple[int, dict[str, str], bytes]:
    method, path = name.split(" ")
    query, body, _ = GOOD.get(name, ("rest" if "<" in path else "", None if method == "GET" else {}, 400))
    if name == "POST /api/query_at_ts":
        body = {**body, "ts": json.loads(server.request("POST", "/api/query_ts", b"")[2])["ts"]}
    headers = {"Authorization": f"Convex {ADMIN_KEY}", "Origin": "https://page.example"}
    return server.request(method, path.partition("<")[0] + query, body, headers)


def test_every_route_has_a_sample() -> None:
    """Whoever adds a route adds a good request for it above; no sample is left of a route that is gone."""
    assert [name for name in TABLE if name not in GOOD and name not in UNAVAILABLE] == []
    assert [name for name in GOOD if name not in TABLE] == []


@pytest.mark.parametrize("name", list(TABLE))
def test_good_input(server: Server, name: str) -> None:
    """Each route answers a good request of an admin with its status, its type, and leave for a page of another origin to read it."""
    status, headers, body = ask(server, name)
    assert status == (GOOD[name][2] if name in GOOD else 400), (status, body)
    assert headers["Access-Control-Allow-Origin"] == "https://page.example"
    if body and status >= 400:
        assert set(json.loads(body)) == {"code", "message"}
    if name not in GOOD:
        assert json.loads(body)["code"] == "NotAvailable"
        assert "not available" in json.loads(body)["message"]
    elif headers["Content-Type"] == "application/json" and body:
        json.loads(body)


def test_calls_that_succeed(server: Server) -> None:
    """The samples of calls reach functions: what they answer is a value."""
    server.request("POST", "/api/rollback", {"push": 1}, {"Authorization": f"Convex {ADMIN_KEY}"})
    for name in (
        "POST /api/query",
        "GET /api/query",
        "POST /api/mutation",
        "POST /api/function",
        "POST /api/query_at_ts",
    ):
        assert json.loads(ask(server, name)[2])["status"] == "success", name
    results = json.loads(ask(server, "POST /api/query_batch")[2])["results"]
    assert [result["status"] for result in results] == ["success", "success"]
