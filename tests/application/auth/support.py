"""Keys, tokens and providers made for the tests; no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from twisted.internet.defer import Deferred

from convex_backend.application.auth.fetch import Fetched, FetchFailed
from convex_backend.application.auth.jwks import ProviderKeys
from convex_backend.application.auth.providers import Provider
from convex_backend.application.auth.verify import Authenticator

T = TypeVar("T")
NOW = 1_800_000_000.0
ISSUER = "https://issuer.test"
JWKS_URL = "https://issuer.test/jwks"
DISCOVERY_URL = "https://issuer.test/.well-known/openid-configuration"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "it waits"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]  # type: ignore[no-any-return]


def private_key(algorithm: str, name: str = "") -> Any:
    """A private key, the same for equal arguments."""
    return _private_key(algorithm, name)


@cache
def _private_key(algorithm: str, name: str) -> Any:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def jwk(algorithm: str, kid: str | None = "k1", name: str = "", **more: Any) -> dict[str, Any]:
    """The public half as a JSON Web Key."""
    tree: dict[str, Any] = json.loads(
        get_default_algorithms()[algorithm].to_jwk(private_key(algorithm, name).public_key())
    )
    tree.pop("key_ops", None)
    if kid is not None:
        tree["kid"] = kid
    return {**tree, **more}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def data_url(*keys: dict[str, Any]) -> str:
    return "data:application/json;base64," + base64.b64encode(key_set(*keys)).decode()


def token(
    algorithm: str = "RS256", *, kid: str | None = "k1", signer: str = "", without: tuple[str, ...] = (), **claims: Any
) -> str:
    """A signed token of :data:`ISSUER` for the audience ``app``, issued at :data:`NOW` for an hour; *claims* change or add."""
    base = {"iss": ISSUER, "sub": "user 1", "aud": "app", "iat": int(NOW), "exp": int(NOW) + 3600}
    tree = {key: value for key, value in {**base, **claims}.items() if key not in without}
    header = {} if kid is None else {"kid": kid}
    return jwt.encode(tree, private_key(algorithm, signer), algorithm=algorithm, headers=header)


class FakeFetcher:
    """Answers by URL; a text as answer is the cause of a failure."""

    def __init__(self) -> None:
        self.answers: dict[str, Fetched | str | Deferred[Fetched]] = {}
        self.asked: list[str] = []

    def serve(self, url: str, body: bytes | Any, status: int = 200, kind: str = "application/json") -> None:
        """Answer *url*; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        reason = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
        self.answers[url] = Fetched(status, reason.get(status, "Whatever"), kind, data, url)

    async def get(self, url: str) -> Fetched:
        self.asked.append(url)
        answer = self.answers.get(url, "connection refused")
        if isinstance(answer, str):
            raise FetchFailed(answer)
        return await answer if isinstance(answer, Deferred) else answer


class World:
    """An authenticator over generated keys and a clock that the test moves."""

    def __init__(self, *providers: Provider, redacted: bool = False) -> None:
        self.now = NOW
        self.providers: tuple[Provider, ...] = providers
        self.fetcher = FakeFetcher()
        self.keys = ProviderKeys(self.fetcher, self.clock)
        self.authenticator = Authenticator(self.read, self.keys, self.clock, redacted=redacted)

    def clock(self) -> float:
        return self.now

    async def read(self) -> tuple[Provider, ...]:
        return self.providers

    def user(self, text: str) -> dict[str, Any]:
        """The identity object behind a good token."""
        identity = run(self.authenticator.authenticate(text))
        assert identity.kind == "user" and identity.attributes is not None
        return dict(identity.attributes)

    def serve_oidc(self, *keys: dict[str, Any], issuer: str = ISSUER) -> None:
        """Discovery and keys of an OIDC issuer."""
        self.fetcher.serve(
            f"{issuer}/.well-known/openid-configuration", {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
        )
        self.fetcher.serve(f"{issuer}/jwks", key_set(*keys))


def error_of(call: Callable[[], object]) -> tuple[str, str, str]:
    """Class name, code and message of the ConvexError that *call* raises."""
    from convex_backend.errors import ConvexError

    try:
        call()
    except ConvexError as error:
        return type(error).__name__, error.code, error.message
    raise AssertionError("it succeeded")
