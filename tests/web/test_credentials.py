"""Who a request comes from: every row of the tables of ``http_api.md`` section 2.3."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.web.support import GOOD_TOKEN, INSTANCE, USER, Bench

QUERY = {"path": "messages:list", "args": [{}]}
ADMIN_POSTS = [
    "/api/function",
    "/api/get_config_hashes",
    "/api/deploy2/start_push",
    "/api/deploy2/evaluate_push",
    "/api/deploy2/evaluate_schema",
    "/api/deploy2/wait_for_schema",
    "/api/deploy2/finish_push",
    "/api/deploy2/report_push_completed",
    "/api/update_environment_variables",
    "/api/v1/update_environment_variables",
]
ADMIN_GETS = [
    "/api/check_admin_key",
    "/api/v1/get_canonical_urls",
    "/api/v1/deployment_info",
    "/api/list_environment_variables",
    "/api/v1/list_environment_variables",
    "/api/stream_function_logs?cursor=0",
    "/api/stream_udf_execution?cursor=0",
    "/api/app_metrics/stream_function_logs?cursor=0",
    "/api/app_metrics/stream_udf_execution?cursor=0",
]
OPTIONAL_POSTS = ["/api/query", "/api/mutation", "/api/action", "/api/run/messages/list"]
ADMIN = [("POST", path) for path in ADMIN_POSTS] + [("GET", path) for path in ADMIN_GETS]
FORBIDDEN_TEXT = (
    f"The provided deploy key was invalid for deployment '{INSTANCE}'. Double check that the environment this key was "
    "generated for matches the desired deployment."
)


def acting(bench: Bench, attributes: Any, key: str | None = None) -> str:
    """An ``Authorization`` value of an admin who acts as a user."""
    text = base64.b64encode(json.dumps(attributes).encode()).decode()
    return f"Convex {key or bench.key}:{text}"


@pytest.mark.parametrize(("method", "path"), ADMIN)
def test_admin_route_without_credentials(method: str, path: str) -> None:
    """A route for admins answers 403 ``BadDeployKey`` to nobody in particular."""
    answer = Bench().ask(method, path, {} if method == "POST" else None)
    assert answer.error == (403, "BadDeployKey")
    assert answer.json["message"] == FORBIDDEN_TEXT


@pytest.mark.parametrize(("method", "path"), ADMIN)
def test_admin_route_with_a_wrong_key(method: str, path: str) -> None:
    """A wrong key is 401 ``BadAdminKey`` on every route that looks at keys."""
    answer = Bench().ask(method, path, {} if method == "POST" else None, {"Authorization": f"Convex {INSTANCE}|00ff"})
    assert answer.error == (401, "BadAdminKey")
    assert answer.json["message"] == "The provided admin key was invalid for this instance"


@pytest.mark.parametrize(("method", "path"), ADMIN)
def test_admin_route_with_a_user_token(method: str, path: str) -> None:
    """A user is not an admin, however valid the token."""
    answer = Bench().ask(method, path, {} if method == "POST" else None, {"Authorization": f"Bearer {GOOD_TOKEN}"})
    assert answer.error == (403, "BadDeployKey")


@pytest.mark.parametrize("path", OPTIONAL_POSTS)
def test_optional_route_with_a_wrong_key(path: str) -> None:
    """Also where credentials are optional, wrong ones are refused before anything runs."""
    bench = Bench()
    answer = bench.ask("POST", path, QUERY, {"Authorization": f"Convex {INSTANCE}|00ff"})
    assert answer.error == (401, "BadAdminKey")
    assert bench.application.calls == []


@pytest.mark.parametrize("scheme", ["Convex", "convex", "CONVEX"])
def test_admin_key_in_the_header(scheme: str) -> None:
    """The scheme's case does not matter."""
    bench = Bench()
    bench.ask("POST", "/api/query", QUERY, {"Authorization": f"{scheme} {bench.key}"})
    assert bench.last_call.identity.kind == "admin"


@pytest.mark.parametrize("prefix", ["prod:", "dev:"])
def test_key_with_a_deployment_type(prefix: str) -> None:
    """A type before the instance name is dropped."""
    bench = Bench()
    assert (
        bench.ask("GET", "/api/check_admin_key", None, {"Authorization": f"Convex {prefix}{bench.key}"}).status == 200
    )


def test_admin_key_as_query_parameter() -> None:
    """``?adminKey=`` counts when there is no header; a wrong one is refused."""
    bench = Bench()
    assert bench.ask("GET", f"/api/check_admin_key?adminKey={bench.key.replace('|', '%7C')}").status == 200
    assert bench.ask("GET", "/api/check_admin_key?adminKey=nope").error == (401, "BadAdminKey")


def test_admin_key_in_the_body() -> None:
    """The ``adminKey`` member counts when the head has nothing; a wrong one is refused."""
    bench = Bench()
    assert bench.ask("POST", "/api/get_config_hashes", {"version": "1", "adminKey": bench.key}).status == 200
    assert bench.ask("POST", "/api/get_config_hashes", {"adminKey": "nope"}).error == (401, "BadAdminKey")
    assert bench.ask("POST", "/api/get_config_hashes", {"adminKey": 7}).error == (403, "BadDeployKey")


def test_header_goes_before_body() -> None:
    """A wrong key in the header is not healed by a good one in the body."""
    bench = Bench()
    answer = bench.ask("POST", "/api/get_config_hashes", {"adminKey": bench.key}, {"Authorization": "Convex x|00"})
    assert answer.error == (401, "BadAdminKey")


def test_wrong_key_is_told_before_the_body_is_looked_at() -> None:
    """Nobody's body is unpacked or parsed on the way to a refusal that the head already decides."""
    answer = Bench().ask(
        "POST", "/api/deploy2/start_push", b"not br", {"Authorization": "Convex x|00", "Content-Encoding": "br"}
    )
    assert answer.error == (401, "BadAdminKey")


@pytest.mark.parametrize(
    ("value", "status", "code", "message"),
    [
        ("Convex", 400, "InvalidHeaderFailure", "Invalid authentication header"),
        ("x", 400, "InvalidHeaderFailure", "Invalid authentication header"),
        ("", 400, "InvalidHeaderFailure", "Invalid authentication header"),
        ("Convex k\xe9y|00", 400, "HeaderParseFailure", "Malformed Authorization header."),
        ("Convex k\x01y|00", 400, "HeaderParseFailure", "Malformed Authorization header."),
        ("Basic dXNlcjpwYXNz", 400, "InvalidAdminKey", "Invalid admin key"),
        ("nonsense", 400, "InvalidAdminKey", "Invalid admin key"),
        ("Bearer bad.token.x", 401, "NoAuthProvider", "No auth provider found"),
        ("Convex tests|zz", 401, "BadAdminKey", "The provided admin key was invalid for this instance"),
    ],
)
def test_bad_header(value: str, status: int, code: str, message: str) -> None:
    """Each way in which an ``Authorization`` header can be wrong has its own answer."""
    answer = Bench().ask("POST", "/api/query", QUERY, {"Authorization": value})
    assert (*answer.error, answer.json["message"]) == (status, code, message)


def test_user_token() -> None:
    """A ``Bearer`` token makes the caller a user, and no token makes nobody."""
    bench = Bench()
    bench.ask("POST", "/api/query", QUERY, {"Authorization": f"Bearer {GOOD_TOKEN}"})
    assert bench.last_call.identity == USER
    bench.ask("POST", "/api/query", QUERY)
    assert bench.last_call.identity.kind == "anonymous"


def test_acting_user() -> None:
    """The base64 part behind the key makes the admin act as a user."""
    bench = Bench()
    attributes = {"issuer": "https://convex.test", "subject": "1", "name": "Ann"}
    bench.ask("POST", "/api/query", QUERY, {"Authorization": acting(bench, attributes)})
    identity = bench.last_call.identity
    assert identity.kind == "acting_user"
    assert dict(identity.attributes or ()) == {**attributes, "tokenIdentifier": "https://convex.test|1"}


@pytest.mark.parametrize("part", ["!!!", "YQ", base64.b64encode(b"{").decode(), base64.b64encode(b"[1]").decode()])
def test_malformed_acting_user(part: str) -> None:
    """Bad base64, bad JSON and what is not an object are 400 ``HeaderParseFailure``."""
    bench = Bench()
    answer = bench.ask("POST", "/api/query", QUERY, {"Authorization": f"Convex {bench.key}:{part}"})
    assert answer.error == (400, "HeaderParseFailure")


def test_acting_user_behind_a_wrong_key() -> None:
    """The key is checked first."""
    bench = Bench()
    assert bench.ask("POST", "/api/query", QUERY, {"Authorization": "Convex x|00:!!!"}).error == (401, "BadAdminKey")


@pytest.mark.parametrize(
    ("method", "path", "body", "operation"),
    [
        ("POST", "/api/update_environment_variables", {"changes": []}, "WriteEnvironmentVariables"),
        ("GET", "/api/check_admin_key", None, None),
        ("GET", "/api/stream_function_logs?cursor=0", None, None),
        ("GET", "/api/list_environment_variables", None, None),
    ],
)
def test_read_only_key(method: str, path: str, body: Any, operation: str | None) -> None:
    """A key that lacks an operation is told which one; reading goes on."""
    bench = Bench()
    answer = bench.ask(method, path, body, {"Authorization": f"Convex {bench.read_only_key}"})
    if operation is None:
        assert answer.status == 200
    else:
        assert answer.error == (403, "OperationNotPermitted")
        assert answer.json["message"] == f"You do not have permission to perform this operation ({operation})."


def test_route_without_auth_ignores_credentials() -> None:
    """Where credentials do not matter, bad ones do no harm."""
    assert Bench().ask("POST", "/api/query_ts", b"", {"Authorization": "x"}).status == 200


@pytest.mark.parametrize(
    "method_path", [("GET", "/api/check_admin_key"), ("POST", "/api/deploy"), ("POST", "/api/get_config_hashes")]
)
def test_admin_key_as_bearer_token(method_path: tuple[str, str]) -> None:
    """On a route for admins a ``Bearer`` token that has not the shape of a JWT is an admin key, right or wrong."""
    bench = Bench()
    method, path = method_path
    body = {"functions": {}} if method == "POST" else None
    assert bench.ask(method, path, body, {"Authorization": f"Bearer {bench.key}"}).status == 200
    assert bench.ask(method, path, body, {"Authorization": "bearer nope"}).error == (401, "BadAdminKey")
    assert bench.ask(method, path, body, {"Authorization": f"Bearer {GOOD_TOKEN}"}).error == (403, "BadDeployKey")


def test_admin_key_as_bearer_token_is_no_admin_elsewhere() -> None:
    """On a route for everybody a ``Bearer`` token is always a user's."""
    bench = Bench()
    answer = bench.ask("POST", "/api/query", QUERY, {"Authorization": f"Bearer {bench.key}"})
    assert answer.error == (401, "NoAuthProvider")
    assert bench.application.calls == []


@pytest.mark.parametrize("kind", ["query", "mutation", "action"])
def test_admin_key_in_the_body_of_a_call(kind: str) -> None:
    """Calls take ``adminKey`` in the body: internal functions are open to it; a wrong one is refused, and the function never sees it."""
    bench = Bench()
    assert bench.ask("POST", f"/api/{kind}", {**QUERY, "adminKey": bench.key}).status == 200
    assert bench.last_call.identity.is_admin
    assert bench.key.encode() not in bench.last_call.args
    assert bench.ask("POST", f"/api/{kind}", {**QUERY, "adminKey": "nope"}).error == (401, "BadAdminKey")
    assert len(bench.application.calls) == 1
