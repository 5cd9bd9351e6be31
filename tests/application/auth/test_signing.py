"""The deployment's own JWTs (npm convex 1.48.0: ``ctx.auth.signJwt``)."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from convex_backend.application.auth import signing
from convex_backend.application.auth.providers import CustomJwtProvider
from convex_backend.application.auth.signing import SigningKeys
from convex_backend.application.sealing import Sealer
from convex_backend.database.system_tables import BACKEND_STATE
from tests.application.auth.support import NOW, World, data_url, error_of
from tests.database.documents import Store, run

CLOUD = "https://cloud.test"


class Deployment:
    """Signing keys over a database in memory; :meth:`keys` is a new process."""

    def __init__(self) -> None:
        self.store = Store()
        self.now = NOW

    def keys(self, secret: bytes = b"s" * 32) -> SigningKeys:
        return SigningKeys(
            database=self.store.db,
            sealer=Sealer(secret, "name"),
            cloud_origin=CLOUD,
            now_seconds=lambda: self.now,
        )


@pytest.fixture
def deployment() -> Deployment:
    return Deployment()


def opened(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, not verified."""
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})


def test_a_token(deployment: Deployment) -> None:
    """The header and `iss`, `iat` and `exp` are the deployment's; the claims are the caller's."""
    keys = deployment.keys()
    header, claims = opened(run(keys.sign("", {"sub": "u", "aud": "x", "a": {"b": [1]}}, 60)))
    (shown,) = run(keys.key_set())["keys"]
    assert header == {"alg": "ES256", "typ": "JWT", "kid": shown["kid"]}
    assert claims == {"sub": "u", "aud": "x", "a": {"b": [1]}, "iss": CLOUD, "iat": int(NOW), "exp": int(NOW) + 60}
    assert set(shown) == {"kty", "crv", "x", "y", "kid", "alg", "use"}, "nothing private is shown"


def test_the_issuer_of_a_component(deployment: Deployment) -> None:
    """A component's tokens name it; all share the keys."""
    assert opened(run(deployment.keys().sign("a/b", None, 1)))[1]["iss"] == f"{CLOUD}/components/a/b"


def test_tokens_verify_against_the_key_set(deployment: Deployment) -> None:
    """The key set is what a customJwt provider takes."""
    keys = deployment.keys()
    token = run(keys.sign("", {"sub": "u", "aud": "app"}, 60))
    url = data_url(*run(keys.key_set())["keys"])
    assert World(CustomJwtProvider(CLOUD, url, "ES256", "app")).user(token)["tokenIdentifier"] == f"{CLOUD}|u"


def test_the_key_is_kept(deployment: Deployment) -> None:
    """A restart signs with the same key, which the database holds under seal."""
    before = run(deployment.keys().key_set())
    assert run(deployment.keys().key_set()) == before

    async def stored() -> str:
        transaction = deployment.store.db.begin("query")
        found = await transaction.system.lookup(BACKEND_STATE.name, "by_key", ("signing_keys",))
        transaction.close()
        assert found is not None
        return json.dumps(found[1])

    text = run(stored())
    assert "private" not in text and before["keys"][0]["kid"] not in text


def test_another_secret_makes_another_key(deployment: Deployment) -> None:
    """The way to end a key that has leaked: change the instance secret."""
    before = run(deployment.keys().key_set())["keys"]
    after = run(deployment.keys(b"t" * 32).key_set())["keys"]
    assert len(after) == 1 and after[0]["kid"] != before[0]["kid"]


def test_rotation(deployment: Deployment) -> None:
    """After ninety days another key signs; the old one is shown until all its tokens have expired."""
    keys = deployment.keys()
    old = opened(run(keys.sign("", {}, 3600)))[0]["kid"]
    deployment.now += signing.ROTATION_DAYS * 86_400 - 1
    assert opened(run(keys.sign("", {}, 3600)))[0]["kid"] == old
    deployment.now += 1
    new = opened(run(keys.sign("", {}, 3600)))[0]["kid"]
    assert new != old
    for process in (keys, deployment.keys()):
        assert [key["kid"] for key in run(process.key_set())["keys"]] == [new, old]
    deployment.now += 3600 + 3600
    assert [key["kid"] for key in run(keys.key_set())["keys"]] == [new]


@pytest.mark.parametrize("name", ["iss", "iat", "exp", "nbf", "convex", "ConvexX", "cvx_a", "CVX"])
def test_reserved_claims(deployment: Deployment, name: str) -> None:
    """Claims that are the deployment's to set, or kept for Convex, are refused."""
    kind, code, message = error_of(lambda: run(deployment.keys().sign("", {name: 1}, 60)))
    assert (kind, code) == ("BadRequest", "ReservedJwtClaim")
    assert f"'{name}'" in message


@pytest.mark.parametrize("claims", [[], "x", 1, {"sub": 1}, {"jti": []}])
def test_claims_that_are_none(deployment: Deployment, claims: Any) -> None:
    """Claims are an object; `sub` and `jti` are texts (RFC 7519)."""
    assert error_of(lambda: run(deployment.keys().sign("", claims, 60)))[1] == "InvalidJwtClaims"


@pytest.mark.parametrize("seconds", [0, 0.5, -1, 3601, 3600.5, float("nan"), None, "60", True])
def test_life_times(deployment: Deployment, seconds: Any) -> None:
    """At least one second and at most an hour."""
    assert error_of(lambda: run(deployment.keys().sign("", {}, seconds)))[1] == "InvalidJwtExpiration"


@pytest.mark.parametrize("seconds", [1, 3600, 59.9])
def test_life_times_that_are_allowed(deployment: Deployment, seconds: float) -> None:
    """Both bounds are allowed; parts of a second are dropped."""
    claims = opened(run(deployment.keys().sign("", {}, seconds)))[1]
    assert claims["exp"] - claims["iat"] == int(seconds)
