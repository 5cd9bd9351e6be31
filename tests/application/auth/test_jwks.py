"""Keeping the keys of providers: for how long, rotation, trouble, and bounds."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from convex_backend.application.auth import jwks
from convex_backend.application.auth.fetch import Fetched, FetchFailed, check_scheme, redirected
from convex_backend.application.auth.jwks import parse_key_set
from convex_backend.application.auth.providers import CustomJwtProvider, OidcProvider
from tests.application.auth.support import DISCOVERY_URL, ISSUER, JWKS_URL, World, error_of, jwk, key_set, token

CUSTOM = CustomJwtProvider(ISSUER, JWKS_URL, "RS256", "app")
LATER = {"exp": 4_000_000_000}


def world() -> World:
    made = World(CUSTOM)
    made.fetcher.serve(JWKS_URL, key_set(jwk("RS256")))
    return made


def test_keys_are_kept_and_fetched_again() -> None:
    """A key set is used for ten minutes."""
    made = world()
    made.user(token(**LATER))
    made.now += jwks.LIFETIME_SECONDS - 1
    made.user(token(**LATER))
    assert made.fetcher.asked == [JWKS_URL]
    made.now += 1
    made.user(token(**LATER))
    assert made.fetcher.asked == [JWKS_URL] * 2


def test_rotation() -> None:
    """A token with an unknown key id makes the keys be fetched again, but not over and over."""
    made = world()
    made.user(token())
    made.fetcher.serve(JWKS_URL, key_set(jwk("RS256", "k2", "new")))
    made.now += jwks.MIN_AGE_SECONDS - 1
    error_of(lambda: made.user(token(kid="k2", signer="new")))
    assert len(made.fetcher.asked) == 1, "asked just now"
    made.now += 1
    assert made.user(token(kid="k2", signer="new"))["subject"] == "user 1"
    for _ in range(50):
        error_of(lambda: made.user(token(kid="made up")))
    assert len(made.fetcher.asked) == 2


@pytest.mark.parametrize("kid", ["k2", None])
def test_rotation_of_an_oidc_provider(kid: str | None) -> None:
    """Likewise; an issuer whose keys have no id is asked again when none fits. Its document may name another place by then."""
    made = World(OidcProvider(ISSUER, "app"))
    made.serve_oidc(jwk("RS256", None if kid is None else "k1"))
    made.user(token(kid=None if kid is None else "k1"))
    made.fetcher.serve(DISCOVERY_URL, {"issuer": f"{ISSUER}/", "jwks_uri": f"{ISSUER}/new"})
    made.fetcher.serve(f"{ISSUER}/new", key_set(jwk("RS256", kid, "new")))
    made.now += jwks.MIN_AGE_SECONDS
    assert made.user(token(kid=kid, signer="new"))["subject"] == "user 1"
    assert made.fetcher.asked == [DISCOVERY_URL, JWKS_URL, DISCOVERY_URL, f"{ISSUER}/new"]


def test_a_provider_that_is_down_for_a_while() -> None:
    """Known keys go on for an hour when they cannot be fetched again; then its trouble shows."""
    made = world()
    made.user(token(**LATER))
    made.fetcher.answers.clear()
    made.now += jwks.LIFETIME_SECONDS + jwks.STALE_SECONDS - 1
    made.user(token(**LATER))
    made.now += 1 + jwks.FAILURE_SECONDS
    assert error_of(lambda: made.user(token(**LATER)))[0] == "Overloaded"
    made.fetcher.serve(JWKS_URL, key_set(jwk("RS256")))
    made.now += jwks.FAILURE_SECONDS
    made.user(token(**LATER))


def test_failures_are_remembered_for_a_moment() -> None:
    """Tokens cannot make the server hammer a provider that fails."""
    made = World(CUSTOM)
    for _ in range(10):
        error_of(lambda: made.user(token()))
    assert len(made.fetcher.asked) == 1
    made.now += jwks.FAILURE_SECONDS
    error_of(lambda: made.user(token()))
    assert len(made.fetcher.asked) == 2


def test_tokens_that_come_together_share_a_fetch() -> None:
    """One request is under way for any number of tokens."""
    made = World(CUSTOM)
    answer: Deferred[Fetched] = Deferred()
    made.fetcher.answers[JWKS_URL] = answer
    waiting = [Deferred.fromCoroutine(made.authenticator.authenticate(token())) for _ in range(5)]
    assert made.fetcher.asked == [JWKS_URL]
    answer.callback(Fetched(200, "OK", "application/json", key_set(jwk("RS256")), JWKS_URL))
    assert [one.result.kind for one in waiting] == ["user"] * 5  # type: ignore[union-attr]


def test_documents_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """E4: the key set that was not used for longest goes first."""
    monkeypatch.setattr(jwks, "MAX_DOCUMENTS", 2)
    made = World(*(CustomJwtProvider(f"{ISSUER}/{n}", f"{JWKS_URL}/{n}", "RS256", None) for n in range(3)))
    for number in range(3):
        made.fetcher.serve(f"{JWKS_URL}/{number}", key_set(jwk("RS256")))
        made.user(token(iss=f"{ISSUER}/{number}"))
    made.user(token(iss=f"{ISSUER}/2"))
    made.user(token(iss=f"{ISSUER}/0"))
    assert [url[-1] for url in made.fetcher.asked] == ["0", "1", "2", "0"]


def test_keys_that_are_left_out() -> None:
    """Keys that are not for signatures, of other kinds, or that cannot be read are no fault of the rest."""
    good = jwk("RS256", "good")
    bad = [
        jwk("RS256", "enc", use="enc"),
        jwk("RS256", "alg", alg="RS512"),
        jwk("RS256", "ops", key_ops=["encrypt"]),
        {**jwk("ES256", "curve"), "crv": "P-521"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kid": "nothing"},
    ]
    found = parse_key_set(key_set(*bad, good, jwk("ES256", "e"), jwk("EdDSA", "o")))
    assert [(key.kid, sorted(key.algorithms)) for key in found.keys] == [
        ("good", ["RS256"]),
        ("e", ["ES256"]),
        ("o", ["EdDSA"]),
    ]


def test_the_number_of_keys_is_bounded() -> None:
    """E4: what is more than sixty-four keys is not looked at."""
    assert len(parse_key_set(key_set(*(jwk("ES256", f"k{n}") for n in range(100)))).keys) == jwks.MAX_KEYS


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/", "gopher://h", "http://", "//h/x", "http://[x/"])
def test_only_the_web_is_asked(url: str) -> None:
    """No scheme but http and https."""
    with pytest.raises(FetchFailed):
        check_scheme(url)


def test_redirects() -> None:
    """A redirect may go up from http to https and stay as it is, but not down."""
    assert redirected("http://a/x", "https://b/y") == "https://b/y"
    assert redirected("https://a/x", "/y") == "https://a/y"
    for target in ("http://a/y", "file:///y", "ftp://a"):
        with pytest.raises(FetchFailed):
            redirected("https://a/x", target)
    with pytest.raises(FetchFailed):
        check_scheme(redirected("http://a/x", "file:///etc/passwd"))
