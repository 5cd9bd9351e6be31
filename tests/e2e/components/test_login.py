"""``@convex-dev/auth`` as a library: passwords, codes by mail, anonymous users, refresh, OAuth's redirect, its React hooks.

The deployment is its own identity provider: the library signs tokens with ``JWT_PRIVATE_KEY`` and answers discovery by HTTP actions.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.e2e.components.conftest import deployed
from tests.e2e.harness import Server, convex, node

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app ``login``, deployed, with the variables that the library's own command would set."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    variables = {
        "JWT_PRIVATE_KEY": pem.strip().replace("\n", " "),
        "JWKS": json.dumps({"keys": [{"use": "sig", **public}]}),
        "SITE_URL": "http://localhost:5173",
        "AUTH_GITHUB_ID": "an-id",
        "AUTH_GITHUB_SECRET": "a-secret",
    }
    with deployed(tmp_path_factory, "login") as server:
        for name, value in variables.items():
            convex(server.app, server, "env", "set", f"{name}={value}")
        yield server


def sign_in(server: Server, provider: str | None, **args: Any) -> Any:
    """What ``auth:signIn`` answers."""
    answer = server.call("action", "auth:signIn", {**({"provider": provider} if provider else {}), **args})
    assert answer["status"] == "success", answer
    return answer["value"]


def failure(server: Server, **args: Any) -> str:
    """The error of a sign-in that must fail."""
    answer = server.call("action", "auth:signIn", args)
    assert answer["status"] == "error", answer
    text: str = answer["errorMessage"]
    return text


def as_user(server: Server, kind: str, path: str, token: str) -> Any:
    """The value of a call with *token* as the caller's."""
    body = {"path": path, "format": "convex_encoded_json", "args": [{}]}
    status, _, answer = server.request("POST", f"/api/{kind}", body, {"Authorization": f"Bearer {token}"})
    assert status == 200, answer
    return json.loads(answer)["value"]


def test_password(login: Server) -> None:
    """Sign up, sign in, a wrong password, a short one; the token names the user and the session to queries."""
    params = {"flow": "signUp", "email": "ann@example.com", "password": "long enough"}
    tokens = sign_in(login, "password", params=params)["tokens"]
    assert as_user(login, "query", "users:viewer", tokens["token"]) == {"email": "ann@example.com", "anonymous": False}
    assert as_user(login, "query", "users:session", tokens["token"]) is True
    assert as_user(login, "query", "auth:isAuthenticated", tokens["token"]) is True
    assert login.value("query", "users:viewer") is None
    again = sign_in(login, "password", params={**params, "flow": "signIn"})["tokens"]
    assert as_user(login, "query", "users:viewer", again["token"])["email"] == "ann@example.com"
    wrong = failure(login, provider="password", params={**params, "flow": "signIn", "password": "not this one"})
    assert "InvalidSecret" in wrong
    assert "Invalid password" in failure(
        login, provider="password", params={**params, "email": "b@x", "password": "short"}
    )


def test_refresh_and_sign_out(login: Server) -> None:
    """A refresh token gives new tokens for the same user; after signing out it gives none."""
    first = sign_in(login, "anonymous")["tokens"]
    assert as_user(login, "query", "users:viewer", first["token"]) == {"email": None, "anonymous": True}
    second = sign_in(login, None, refreshToken=first["refreshToken"])["tokens"]
    assert as_user(login, "query", "users:viewer", second["token"]) == {"email": None, "anonymous": True}
    as_user(login, "action", "auth:signOut", second["token"])
    assert sign_in(login, None, refreshToken=second["refreshToken"])["tokens"] is None


def test_codes_by_mail(login: Server) -> None:
    """A code that was sent signs a new user in once; a password is reset by one; a wrong one is refused."""
    assert sign_in(login, "code", params={"email": "cid@example.com"}) == {"started": True}
    code = login.value("query", "users:lastMail", {"to": "cid@example.com"})
    assert re.fullmatch(r"\d{8}", code)
    wrong = login.call(
        "action", "auth:signIn", {"provider": "code", "params": {"email": "cid@example.com", "code": "1"}}
    )
    assert wrong["status"] == "error"
    sign_in(login, "code", params={"email": "cid@example.com"})
    code = login.value("query", "users:lastMail", {"to": "cid@example.com"})
    tokens = sign_in(login, "code", params={"email": "cid@example.com", "code": code})["tokens"]
    assert as_user(login, "query", "users:viewer", tokens["token"])["email"] == "cid@example.com"

    params = {"flow": "signUp", "email": "dan@example.com", "password": "forgotten at once"}
    sign_in(login, "password", params=params)
    sign_in(login, "password", params={"flow": "reset", "email": "dan@example.com"})
    code = login.value("query", "users:lastMail", {"to": "dan@example.com"})
    reset = {"flow": "reset-verification", "email": "dan@example.com", "code": code, "newPassword": "remembered now"}
    assert sign_in(login, "password", params=reset)["tokens"] is not None
    assert "InvalidSecret" in failure(login, provider="password", params={**params, "flow": "signIn"})
    now = sign_in(login, "password", params={**params, "flow": "signIn", "password": "remembered now"})
    assert now["tokens"] is not None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def test_redirect_to_a_provider(login: Server) -> None:
    """Signing in with GitHub leads over our HTTP action, which sets cookies, to GitHub with our callback; discovery shows the keys."""
    answer = sign_in(login, "github", params={"redirectTo": "/home"})
    assert answer["redirect"].startswith(f"http://127.0.0.1:{login.site_port}/api/auth/signin/github?")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(_Stay).open(answer["redirect"], timeout=30)
    with caught.value as sent:
        assert sent.code == 302
        target = urllib.parse.urlsplit(sent.headers["Location"])
        cookies = sent.headers.get_all("Set-Cookie") or []
    asked = urllib.parse.parse_qs(target.query)
    assert (target.netloc, asked["client_id"]) == ("github.com", ["an-id"])
    assert asked["redirect_uri"] == [f"http://127.0.0.1:{login.site_port}/api/auth/callback/github"]
    assert len(cookies) >= 2
    with urllib.request.urlopen(
        f"http://127.0.0.1:{login.site_port}/.well-known/openid-configuration", timeout=30
    ) as found:
        assert json.load(found)["issuer"] == f"http://127.0.0.1:{login.site_port}"


def test_react_hooks(login: Server) -> None:
    """``ConvexAuthProvider``: signing up turns the live query into the user's, a reload keeps the session, signing out ends it."""
    assert node(login.app, "npm_login.mjs", login) == [
        "out:nobody",
        {"signingIn": True},
        "in:rea@example.com",
        "in:rea@example.com",
        "out:nobody",
    ]
