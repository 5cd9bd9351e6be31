"""Users and variables end to end: a local issuer, the official clients and CLI (statement 56, issue 7 items 7, 8 and 10)."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.e2e.harness import ADMIN_KEY, Server, convex, make_app, node, running
from tests.e2e.issuer import Issuer, serving

ADMIN = {"Authorization": f"Convex {ADMIN_KEY}"}


def set_variables(server: Server, **values: str | None) -> None:
    """Set variables, or delete them with ``None``."""
    changes = [{"name": name, "value": value} for name, value in values.items()]
    status, _, body = server.request("POST", "/api/update_environment_variables", {"changes": changes}, ADMIN)
    assert status == 200, body


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_app(tmp_path_factory.mktemp("apps"), "auth")


@pytest.fixture(scope="module")
def first_push(issuer: Issuer, app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """The server, and what the CLI said before the config's variable was set."""
    with running(tmp_path_factory.mktemp("server")) as server:
        refused = convex(app, server, "deploy", "--typecheck", "disable", check=False)
        set_variables(server, ISSUER=issuer.url)
        convex(app, server, "deploy", "--typecheck", "disable")
        yield server, refused


@pytest.fixture
def server(first_push: tuple[Server, str]) -> Server:
    return first_push[0]


def me(server: Server, credentials: str | None, what: str = "query", path: str = "users:me") -> Any:
    """Run a function under an ``Authorization`` header. :returns: its value, or the body of an error with its status."""
    headers = {} if credentials is None else {"Authorization": credentials}
    status, _, body = server.request("POST", f"/api/{what}", {"path": path, "format": "json", "args": {}}, headers)
    tree = json.loads(body)
    return tree["value"] if status == 200 else {"status": status, **tree}


def test_a_config_with_an_unset_variable(first_push: tuple[Server, str]) -> None:
    """http_api.md 15.9: the push fails, and the CLI names the variable to set."""
    output = first_push[1]
    assert "ISSUER" in output and "env set" in output
    assert output.endswith("[exit 1]")


def test_npm_clients(server: Server, app: Path, issuer: Issuer) -> None:
    """Login, refresh, change of user and logout on the socket; identities in queries, mutations, actions and what they call; rejected
    tokens; a refresh with an equal identity neither runs a query again nor sends a result again."""
    lines = node(app, "auth.mjs", server, issuer.url)
    ada, bob = "ada@example.com", "bob@example.com"
    token_identifier = f"{issuer.url}|ada"
    assert lines[0] == {"login": True, "joined": [token_identifier] * 2, "acted": [token_identifier] * 2}
    assert lines[1] == {"seen": [None, ada], "refreshed": True, "still": ada}
    assert [one for one in lines[2]["seen"] if one is not None] == [ada, bob]
    assert lines[3] == {"left": None, "asked": None}
    assert lines[4] == {"rejected": None}
    custom = f"{issuer.url}/custom"
    assert lines[5] == {
        "custom": {"tokenIdentifier": f"{custom}|eve", "issuer": custom, "subject": "eve", "role": "admin"}
    }
    assert lines[6] == {"http": "hal", "mutation": [f"{issuer.url}|hal"] * 2}
    assert lines[7]["code"] == "Unauthenticated"
    assert lines[8]["code"] == "InvalidAuthHeader"
    assert re.fullmatch(r"Could not validate token: Token expired 6\d seconds ago", lines[8]["message"])
    assert lines[9]["code"] == "NoAuthProvider"
    assert f"OIDC(domain={issuer.url}, app_id=app), CustomJWT(issuer={custom}, app_id=app)" in lines[9]["message"]
    assert lines[10] == {"anonymous": None}


def test_the_expiry_of_a_connection(server: Server, app: Path, issuer: Issuer) -> None:
    """sync.md 6.3, statement 44: a refresh with an equal identity sends no result again; an idle socket outlives its token, and the first
    use of it afterwards is refused and not run."""
    joined = server.value("query", "users:count")
    first, second, idle, refused, end = node(app, "auth_socket.mjs", server, issuer.url)
    assert first == {"identity": 1, "subject": "ada"}
    assert second == {"identity": 2, "modifications": 0}
    assert idle == {"idle": 0}
    assert refused == {
        "type": "AuthError",
        "error": "Convex token identity expired",
        "baseVersion": 2,
        "authUpdateAttempted": False,
    }
    assert end == "close"
    assert server.value("query", "users:count") == joined


def test_the_python_client(server: Server, issuer: Issuer) -> None:
    """PyPI convex: set_auth changes who the client is."""
    from convex import ConvexClient

    client = ConvexClient(server.url)
    client.set_auth(issuer.token("pia", name="Pia"))
    assert client.query("users:me")["name"] == "Pia"  # type: ignore[index, call-overload]
    client.set_auth(issuer.token("pia", kind="custom"))
    assert client.mutation("users:join")[0] == f"{issuer.url}/custom|pia"  # type: ignore[index, call-overload]


def test_http_actions_run_with_any_header(server: Server, issuer: Issuer) -> None:
    """9.7, http_api.md 4: `getUserIdentity` throws for a header that cannot be used, and gives null only without one."""

    def ask(credentials: str | None) -> Any:
        headers = {} if credentials is None else {"Authorization": credentials}
        status, _, body = server.request("GET", "/http/me", headers=headers)
        assert status == 200, body
        return json.loads(body)

    assert ask(None) == {"identity": None, "header": None}
    good = f"Bearer {issuer.token('u')}"
    assert ask(good)["identity"]["tokenIdentifier"] == f"{issuer.url}|u"
    for bad, text in (
        ("Basic dTpw", "Invalid admin key"),
        ("short", "Invalid authentication header"),
        ("Bearer x", "Could not parse JWT payload."),
        (f"Bearer {issuer.token('u', seconds=-60)}", "Could not verify OIDC token claim."),
    ):
        found = ask(bad)
        assert found["header"] == bad
        assert text in found["error"]


def test_the_provider_is_asked_once(server: Server, issuer: Issuer) -> None:
    """Keys are kept: any number of tokens cost one look at the provider."""
    for _ in range(5):
        assert me(server, f"Bearer {issuer.token('u')}")["subject"] == "u"
    assert issuer.asked().count("/keys") == 1


def test_results_are_shared_unless_the_identity_matters(server: Server, issuer: Issuer) -> None:
    """9.7, 10: users share the result of a query that does not ask who they are, and no other."""

    def runs() -> int:
        _, _, body = server.request("GET", "/metrics")
        text = body.decode()
        return sum(
            int(float(line.split()[-1]))
            for line in text.splitlines()
            if line.startswith("convex_functions_runs_total{") and 'kind="query"' in line
        )

    users = [f"Bearer {issuer.token(name)}" for name in ("s1", "s2", "s3")]
    me(server, users[0], path="users:count")
    before = runs()
    assert len({me(server, user, path="users:count") for user in users}) == 1
    assert runs() == before
    assert [me(server, user)["subject"] for user in users] == ["s1", "s2", "s3"]


def test_the_token_of_the_request(server: Server, issuer: Issuer) -> None:
    """npm: `getRequestMetadata` has the raw token of a user, and none of anybody else."""
    token = issuer.token("u")
    for credentials, expected in ((f"Bearer {token}", token), (None, None), (f"Convex {ADMIN_KEY}", None)):
        assert me(server, credentials, "mutation", "users:request")["authToken"] == expected


def test_an_admin_acts_as_a_user(server: Server) -> None:
    """http_api.md 2.3: the identity is exactly what the header says, with its token identifier."""
    acting = base64.b64encode(json.dumps({"issuer": "i", "subject": "s", "role": "r"}).encode()).decode()
    expected = {"issuer": "i", "subject": "s", "role": "r", "tokenIdentifier": "i|s"}
    assert me(server, f"Convex {ADMIN_KEY}:{acting}") == expected
    assert me(server, f"Convex {ADMIN_KEY}:{acting}", "action", "users:act") == ["i|s", "i|s"]


def test_the_deployment_signs_tokens(server: Server) -> None:
    """npm 1.48.0: anyone can verify them with the public key; the deployment itself takes them when its config says so."""
    claims = {"sub": "guest 7", "aud": "own", "room": {"id": 3}}
    token = server.value("mutation", "users:sign", {"claims": claims, "seconds": 60})
    status, headers, body = server.request("GET", "/.well-known/jwks.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    (key,) = json.loads(body)["keys"]
    decoded = jwt.decode(token, jwt.PyJWK(key).key, ["ES256"], audience="own", issuer=server.url)
    assert {name: decoded[name] for name in claims} == claims
    assert decoded["exp"] - decoded["iat"] == 60
    identity = me(server, f"Bearer {token}")
    assert (identity["subject"], identity["room.id"], identity["issuer"]) == ("guest 7", 3, server.url)
    for bad in ({"claims": {"ConvexA": 1}, "seconds": 60}, {"claims": {}, "seconds": 3601}):
        assert server.call("mutation", "users:sign", bad)["status"] == "error"


def test_snapshot_timestamps(server: Server) -> None:
    """npm 1.47.0: nanoseconds on the clock of commits, the same for a mutation and what it can see."""

    def ns(value: Any) -> int:
        return int.from_bytes(base64.b64decode(value["$integer"]), "little")

    first = ns(server.value("mutation", "users:write"))
    second = ns(server.value("mutation", "users:write"))
    now = ns(server.value("query", "users:snapshot"))
    assert first < second < now
    assert abs(now / 1e9 - time.time()) < 3600


def test_env_commands(server: Server, app: Path, tmp_path: Path) -> None:
    """http_api.md 15.18: set, get, list and remove, one or many from a file, survive newlines, equals signs and 8 KiB."""
    long = "x" * 8192
    convex(app, server, "env", "set", "LONG", long)
    assert long in convex(app, server, "env", "get", "LONG")
    values = tmp_path / "values.env"
    values.write_text('A="1=2"\nB="line 1\nline 2"\n')
    convex(app, server, "env", "set", "--from-file", str(values))
    listed = convex(app, server, "env", "list", "--include-values")
    assert f"LONG={long}" in listed and "A=" in listed
    _, _, body = server.request("GET", "/api/list_environment_variables", headers=ADMIN)
    variables = json.loads(body)["environmentVariables"]
    assert (variables["A"], variables["B"]) == ("1=2", "line 1\nline 2")
    convex(app, server, "env", "remove", "LONG")
    set_variables(server, A=None, B=None)
    assert convex(app, server, "env", "list", "--names-only").strip() == "ISSUER"


def test_variables_that_cannot_be_changed(server: Server, app: Path) -> None:
    """6.2: built-in names are protected, and a variable that the auth config needs stays."""
    output = convex(app, server, "env", "set", "CONVEX_CLOUD_URL", "x", check=False)
    assert 'Environment variable with name "CONVEX_CLOUD_URL" is built-in and cannot be overridden' in output
    output = convex(app, server, "env", "remove", "ISSUER", check=False)
    assert "Environment variable ISSUER is used in auth config file but its value was not set" in output


def test_a_changed_variable_reaches_live_queries_and_the_auth_config(server: Server, app: Path, issuer: Issuer) -> None:
    """6.2: a query that reads the variable runs again; the providers are those that the config gives now."""
    from convex import ConvexClient

    client = ConvexClient(server.url)
    subscription = client.subscribe("users:greeting", {})
    assert next(subscription) is None
    set_variables(server, GREETING="hello")
    assert next(subscription) == "hello"
    set_variables(server, GREETING=None)
    assert next(subscription) is None
    good = f"Bearer {issuer.token('u')}"
    set_variables(server, ISSUER="http://127.0.0.1:9")
    try:
        assert me(server, good)["code"] == "NoAuthProvider"
    finally:
        set_variables(server, ISSUER=issuer.url)
    assert me(server, good)["subject"] == "u"


def test_a_provider_that_is_down(server: Server) -> None:
    """sync.md 47: its trouble is not the token's: 503 over HTTP, and nothing is believed."""
    with serving() as other:
        other.set_down(True)
        set_variables(server, ISSUER=other.url)
        found = me(server, f"Bearer {other.token('u')}")
        assert (found["status"], found["code"]) == (503, "AuthProviderDiscoveryFailed")
        found = me(server, f"Bearer {other.token('u', kind='custom')}")
        assert found["status"] == 503
        assert "HTTP 503 Service Unavailable" in found["message"]
        other.set_down(False)
        time.sleep(1.1)
        assert me(server, f"Bearer {other.token('u')}")["subject"] == "u"
