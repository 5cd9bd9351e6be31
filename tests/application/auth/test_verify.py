"""Users' tokens: what is accepted, and every text of what is not (``runtime.md`` section 9.7)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from convex_backend.application.auth.providers import CustomJwtProvider, OidcProvider
from tests.application.auth.support import (
    DISCOVERY_URL,
    ISSUER,
    JWKS_URL,
    NOW,
    World,
    data_url,
    error_of,
    jwk,
    key_set,
    private_key,
    run,
    token,
)

CUSTOM = CustomJwtProvider(ISSUER, JWKS_URL, "RS256", "app")
OIDC = OidcProvider(ISSUER, "app")


def custom(algorithm: str = "RS256", **more: Any) -> World:
    """A world with one custom provider whose keys are served."""
    world = World(CustomJwtProvider(ISSUER, JWKS_URL, algorithm, "app"), **more)
    world.fetcher.serve(JWKS_URL, key_set(jwk(algorithm)))
    return world


def oidc(*keys: dict[str, Any]) -> World:
    """A world with one OIDC provider whose keys are served."""
    world = World(OIDC)
    world.serve_oidc(*(keys or (jwk("RS256"),)))
    return world


# -- good tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_custom_jwt(algorithm: str) -> None:
    """9.7: RS256 and ES256; the identity has three attributes and every claim that is not registered, flattened with dots."""
    text = token(algorithm, a={"b": 1, "c": {"d": [1, {"e": 2}]}}, name="Ada", jti="x", nbf=int(NOW))
    assert custom(algorithm).user(text) == {
        "tokenIdentifier": f"{ISSUER}|user 1",
        "issuer": ISSUER,
        "subject": "user 1",
        "a.b": 1,
        "a.c.d": [1, {"e": 2}],
        "name": "Ada",
    }


def test_no_claim_passes_for_who_the_user_is() -> None:
    """A claim named like an attribute does not replace it, in either kind of token."""
    forged = {"tokenIdentifier": "x|y", "issuer": "x", "subject": "y"}
    assert custom().user(token(**forged))["tokenIdentifier"] == f"{ISSUER}|user 1"
    assert oidc().user(token(**forged))["subject"] == "user 1"


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_an_oidc_token(algorithm: str) -> None:
    """9.7, statement 56: standard claims have Convex's names, others their own; what is about the token or the login is left out."""
    claims = {
        "name": "Ada L",
        "given_name": "Ada",
        "family_name": "L",
        "nickname": "al",
        "preferred_username": "ada",
        "profile": "https://p",
        "picture": "https://i",
        "website": "https://w",
        "email": "a@b",
        "email_verified": "true",
        "gender": "f",
        "birthdate": "1815-12-10",
        "zoneinfo": "Europe/London",
        "locale": "en",
        "phone_number": "+1",
        "phone_number_verified": False,
        "address": {"formatted": "12 St", "country": "UK"},
        "updated_at": 1_600_000_000,
        "org": {"id": 7},
        "name#ja": "x",
        "nonce": "n",
        "azp": "z",
        "jti": "j",
        "fva": [1, -1],
    }
    assert oidc(jwk(algorithm)).user(token(algorithm, **claims)) == {
        "tokenIdentifier": f"{ISSUER}|user 1",
        "issuer": ISSUER,
        "subject": "user 1",
        "name": "Ada L",
        "givenName": "Ada",
        "familyName": "L",
        "nickname": "al",
        "preferredUsername": "ada",
        "profileUrl": "https://p",
        "pictureUrl": "https://i",
        "websiteUrl": "https://w",
        "email": "a@b",
        "emailVerified": True,
        "gender": "f",
        "birthday": "1815-12-10",
        "timezone": "Europe/London",
        "language": "en",
        "phoneNumber": "+1",
        "phoneNumberVerified": False,
        "address": "12 St",
        "updatedAt": "2020-09-13T12:26:40+00:00",
        "org": {"id": 7},
    }


def test_a_token_without_a_key_id() -> None:
    """OIDC issuers with a key that has no name: each key of the algorithm is tried."""
    world = oidc(jwk("RS256", None, "other"), jwk("EdDSA", None), jwk("RS256", None))
    assert world.user(token(kid=None))["subject"] == "user 1"


def test_iat_may_be_absent_and_clocks_may_differ() -> None:
    """http_api.md 2.3: five seconds of leeway for custom JWTs, and no `iat` is needed."""
    world = custom()
    world.user(token(without=("iat",)))
    world.user(token(exp=int(NOW) - 5))
    world.user(token(nbf=int(NOW) + 5, iat=int(NOW) + 5))


def test_the_identity_expires_with_the_token() -> None:
    """sync.md 6.3: the expiry travels with the identity, and tells no two identities apart."""
    world = custom()
    first, second = (run(world.authenticator.authenticate(token(exp=int(NOW) + n))) for n in (10, 20))
    assert (first.expires_at, second.expires_at) == (NOW + 10, NOW + 20)
    assert first.key == second.key
    assert first.token != second.token and str(first.token) not in repr(first)


def test_the_order_of_claims_makes_no_other_user() -> None:
    """A provider may write the claims of two tokens in another order: the user is the same to functions."""
    world = custom()
    first, second = (
        run(world.authenticator.authenticate(token(**claims))) for claims in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert first.attributes != second.attributes
    assert first.key == second.key


@pytest.mark.parametrize(
    ("configured", "claimed"),
    [(ISSUER, f"{ISSUER}/"), (f"{ISSUER}/", ISSUER), ("issuer.test", ISSUER), (ISSUER, "issuer.test")],
)
def test_issuers_are_compared_loosely(configured: str, claimed: str) -> None:
    """9.7: a trailing slash and a missing scheme make no difference, and the identity has the issuer of the token."""
    world = World(CustomJwtProvider(configured, data_url(jwk("RS256")), "RS256", None))
    assert world.user(token(iss=claimed))["issuer"] == claimed


def test_the_first_provider_that_fits_answers() -> None:
    """9.7: issuer and audience decide; a provider without applicationID takes any audience."""
    other = CustomJwtProvider(ISSUER, data_url(jwk("RS256", name="other")), "RS256", "other app")
    anyone = CustomJwtProvider(ISSUER, data_url(jwk("RS256")), "RS256", None)
    world = World(other, anyone)
    assert world.user(token(aud=["x", "y"]))["subject"] == "user 1"
    assert world.user(token(without=("aud",)))["subject"] == "user 1"
    assert error_of(lambda: world.user(token(aud=["x", "other app"])))[1] == "InvalidAuthHeader"


# -- bad tokens -----------------------------------------------------------------------------------------


def unsigned(**claims: Any) -> str:
    """A token of algorithm ``none``."""
    return jwt.encode({"iss": ISSUER, "sub": "s", "aud": "app", "exp": NOW + 9, **claims}, None, "none", {"kid": "k1"})


def confused() -> str:
    """A token whose HMAC key is the public key of the provider."""
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "kid": "k1"}, {"iss": ISSUER, "sub": "s", "aud": "app", "exp": NOW + 9})
    )
    import hashlib
    import hmac

    secret = json.dumps(jwk("RS256")).encode()
    tag = base64.urlsafe_b64encode(hmac.digest(secret, head + b"." + body, hashlib.sha256)).rstrip(b"=")
    return b".".join((head, body, tag)).decode()


def tampered() -> str:
    head, body, tag = token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["sub"] = "somebody else"
    return ".".join((head, base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("="), tag))


HEADER = "InvalidAuthHeader"
NOT_A_JWT = (
    "Could not parse JWT payload. Check that the token is a valid JWT format with three base64-encoded parts "
    "separated by dots."
)
WRONG_KEY = (
    "Could not decode token. The JWT's 'kid' (key ID) header is '{}', does this key match any key in the provider's "
    "JWKS?"
)
NO_PROVIDER = "No auth provider found matching the given token"
LISTED = (
    f"{NO_PROVIDER}. Check that your JWT's issuer and audience match one of your configured providers: "
    f"[CustomJWT(issuer={ISSUER}, app_id=app)]"
)
OIDC_CLAIM = "Could not verify OIDC token claim. Check that the token signature is valid and the token hasn't expired."
NO_ISSUER = (
    "Missing issuer claim ('iss') in JWT payload. The JWT must include an 'iss' claim that matches one of your "
    "configured auth providers."
)


@pytest.mark.parametrize(
    ("make", "text", "code", "message"),
    [
        (custom, lambda: "x", HEADER, NOT_A_JWT),
        (custom, lambda: "a.b.c.d", HEADER, NOT_A_JWT),
        (custom, lambda: "!.!.!", HEADER, NOT_A_JWT),
        (custom, lambda: "é.é.é", HEADER, NOT_A_JWT),
        (custom, lambda: "W10.W10.W10", HEADER, NOT_A_JWT),
        (custom, lambda: "e30." + "A" * 70_000 + ".e30", HEADER, NOT_A_JWT),
        (custom, lambda: token(without=("iss",)), HEADER, NO_ISSUER),
        (custom, lambda: token(iss="https://other.test"), "NoAuthProvider", LISTED),
        (custom, lambda: token(aud="other"), "NoAuthProvider", LISTED),
        (custom, lambda: token(without=("aud",)), "NoAuthProvider", LISTED),
        (World, token, "NoAuthProvider", f"{NO_PROVIDER} (no providers configured). Check convex/auth.config.ts."),
        (
            custom,
            lambda: token(kid=None),
            HEADER,
            "Could not decode token. JWT may be missing a 'kid' (key ID) header.",
        ),
        (custom, lambda: token(kid="k2"), HEADER, WRONG_KEY.format("k2")),
        (custom, lambda: token(signer="other"), HEADER, WRONG_KEY.format("k1")),
        (custom, lambda: token("ES256"), HEADER, WRONG_KEY.format("k1")),
        (custom, unsigned, HEADER, WRONG_KEY.format("k1")),
        (custom, confused, HEADER, WRONG_KEY.format("k1")),
        (custom, tampered, HEADER, WRONG_KEY.format("k1")),
        (custom, lambda: token(without=("sub",)), HEADER, "Missing subject"),
        (custom, lambda: token(without=("exp",)), HEADER, "Missing expiry"),
        (custom, lambda: token(exp=int(NOW) - 10), HEADER, "Could not validate token: Token expired 10 seconds ago"),
        (
            custom,
            lambda: token(nbf=int(NOW) + 60),
            HEADER,
            "Could not validate token: Token will be valid in 60 seconds",
        ),
        (custom, lambda: token(iat=int(NOW) + 6), HEADER, "Could not validate token: Token will be valid in 6 seconds"),
        (oidc, lambda: token(signer="other"), "Unauthenticated", OIDC_CLAIM),
        (oidc, lambda: token(kid="k2"), "Unauthenticated", OIDC_CLAIM),
        (oidc, lambda: token("ES256"), "Unauthenticated", OIDC_CLAIM),
        (oidc, unsigned, "Unauthenticated", OIDC_CLAIM),
        (oidc, confused, "Unauthenticated", OIDC_CLAIM),
        (oidc, tampered, "Unauthenticated", OIDC_CLAIM),
        (oidc, lambda: token(exp=int(NOW)), "Unauthenticated", OIDC_CLAIM),
        (oidc, lambda: token(nbf=int(NOW) + 60), "Unauthenticated", OIDC_CLAIM),
        (oidc, lambda: token(aud=["app", "other"]), "Unauthenticated", OIDC_CLAIM),
        (oidc, lambda: token(without=("sub",)), HEADER, "Could not parse as OIDC ID token. Missing subject"),
        (oidc, lambda: token(without=("exp",)), HEADER, "Could not parse as OIDC ID token. Missing expiry"),
        (
            oidc,
            lambda: token(email=7),
            HEADER,
            "Could not parse as OIDC ID token. Check the token's claims: the claim 'email' has an unexpected type.",
        ),
    ],
)
def test_a_bad_token(make: Callable[[], World], text: Callable[[], str], code: str, message: str) -> None:
    """9.7: each fault has its code and text, and all of these are 401."""
    world = make()
    assert error_of(lambda: world.user(text())) == ("Unauthenticated", code, message)


def test_redaction() -> None:
    """9.7, 8.4: redacted texts show neither the config nor key ids."""
    world = custom(redacted=True)
    assert error_of(lambda: world.user(token(iss="https://x.test")))[2] == NO_PROVIDER
    assert error_of(lambda: world.user(token(kid="secret")))[2] == "Could not decode token."


def test_critical_extensions_are_refused() -> None:
    """RFC 7515: a header that must be understood and is not makes the token invalid."""
    world = custom()
    text = jwt.encode(
        {"iss": ISSUER, "sub": "s", "aud": "app", "exp": NOW + 9},
        private_key("RS256"),
        "RS256",
        {"kid": "k1", "crit": ["x"], "x": 1},
    )
    assert error_of(lambda: world.user(text))[2] == WRONG_KEY.format("k1")


def test_nothing_is_fetched_for_a_token_that_nobody_answers_for() -> None:
    """No request leaves the server for an issuer that is not configured."""
    world = custom()
    error_of(lambda: world.user(token(iss="https://evil.test")))
    assert world.fetcher.asked == []


# -- providers that do not answer as they should -----------------------------------------------------------


CHECK = "Check that the URL is correct and accessible."


@pytest.mark.parametrize(
    ("status", "kind", "body", "error"),
    [
        (
            404,
            "text/html",
            b"",
            ("Unauthenticated", HEADER, f"Could not fetch JWKS from URL '{JWKS_URL}': HTTP 404 Not Found. {CHECK}"),
        ),
        (
            503,
            "text/html",
            b"",
            (
                "Overloaded",
                "AuthProviderUnavailable",
                f"Could not fetch JWKS from URL '{JWKS_URL}': HTTP 503 Whatever. {CHECK}",
            ),
        ),
        (
            200,
            "text/html",
            b"{}",
            (
                "Unauthenticated",
                HEADER,
                f"Invalid Content-Type 'text/html' when fetching JWKS from '{JWKS_URL}'. "
                "Expected 'application/json' or 'application/jwk-set+json'.",
            ),
        ),
        *(
            (
                200,
                "application/json",
                body,
                (
                    "Unauthenticated",
                    HEADER,
                    f"Invalid JWKS response body from '{JWKS_URL}'. The response is not valid JSON or doesn't match "
                    "the expected JWKS format.",
                ),
            )
            for body in (b"<", b"[]", b'{"keys":{}}', b'{"keys":[1]}', b"\xff")
        ),
    ],
)
def test_bad_key_sets(status: int, kind: str, body: bytes, error: tuple[str, str, str]) -> None:
    """9.7: what is wrong with the answer for a custom JWT's keys; a server in trouble is not the token's fault."""
    world = World(CUSTOM)
    world.fetcher.serve(JWKS_URL, body, status, kind)
    assert error_of(lambda: world.user(token())) == error


def test_an_unreachable_key_set() -> None:
    """sync.md 47: a provider that does not answer is not the token's fault."""
    found = error_of(lambda: World(CUSTOM).user(token()))
    assert found[0] == "Overloaded"
    assert found[2] == f"Could not fetch JWKS from URL '{JWKS_URL}': connection refused. {CHECK}"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/jwk-set+json", "Application/JSON"])
def test_content_types(kind: str) -> None:
    """9.7: both media types, with parameters too."""
    world = World(CUSTOM)
    world.fetcher.serve(JWKS_URL, key_set(jwk("RS256")), 200, kind)
    assert world.user(token())["subject"] == "user 1"


@pytest.mark.parametrize(
    "head", ["data:text/plain;charset=utf-8;base64,", "data:;base64,", "data:,", "DATA:application/json,"]
)
def test_data_urls(head: str) -> None:
    """9.7: a `data:` key set may have any media type, in base64 or percent-encoded."""
    from urllib.parse import quote

    body = key_set(jwk("RS256"))
    url = head + (base64.b64encode(body).decode() if head.endswith("base64,") else quote(body))
    world = World(CustomJwtProvider(ISSUER, url, "RS256", None))
    assert world.user(token())["subject"] == "user 1"
    assert world.fetcher.asked == []


@pytest.mark.parametrize("url", ["data:nothing", "data:;base64,!!!", "data:,{}", "data:application/json,[1"])
def test_bad_data_urls(url: str) -> None:
    """9.7: a `data:` URL without a key set."""
    found = error_of(lambda: World(CustomJwtProvider(ISSUER, url, "RS256", None)).user(token()))
    assert found[:2] == ("Unauthenticated", HEADER)
    assert found[2].startswith("Invalid JWKS data URL. ")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "Unauthenticated"),
        (403, "Forbidden"),
        (404, "NotFound"),
        (429, "RateLimited"),
        (400, "BadRequest"),
        (418, "BadRequest"),
        (500, "Overloaded"),
        (302, "Overloaded"),
    ],
)
def test_discovery_that_fails(status: int, kind: str) -> None:
    """9.7: the provider's status decides the class, and the text shows its status and body."""
    world = World(OIDC)
    world.fetcher.serve(DISCOVERY_URL, b"the body", status)
    found = error_of(lambda: world.user(token()))
    assert found[:2] == (kind, "AuthProviderDiscoveryFailed")
    assert found[2].startswith(f"Auth provider discovery of {ISSUER} failed: {status} ")
    assert found[2].endswith(" the body")


@pytest.mark.parametrize(
    "document",
    [
        b"<",
        [],
        {"issuer": ISSUER},
        {"jwks_uri": JWKS_URL},
        {"issuer": "https://other.test", "jwks_uri": JWKS_URL},
        {"issuer": ISSUER, "jwks_uri": "http://issuer.test/jwks"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
    ],
)
def test_discovery_documents_that_make_no_sense(document: Any) -> None:
    """A document without keys, of another issuer, or with keys that are not served as safely as it is."""
    world = World(OIDC)
    world.fetcher.serve(DISCOVERY_URL, document)
    found = error_of(lambda: world.user(token()))
    assert found[:2] == ("Unauthenticated", "AuthProviderDiscoveryFailed")
    assert world.fetcher.asked == [DISCOVERY_URL]


def test_discovery_without_an_answer() -> None:
    """9.7: a provider that is down is overload."""
    found = error_of(lambda: World(OIDC).user(token()))
    assert found == (
        "Overloaded",
        "AuthProviderDiscoveryFailed",
        f"Auth provider discovery of {ISSUER} failed: connection refused",
    )
