"""The keys of providers: fetched, checked for what they may be used for, and kept for a while.

::

    key set by URL ── fresh ─► kept ── unknown kid and not asked lately ─► fetched again (keys have been rotated)
                   └─ old ──► fetched ── provider is down ─► the kept one, for an hour more

Equal fetches under way are shared, and a failure is remembered for a second, so that tokens cannot be used to make this server ask a provider
over and over. Source: ``runtime.md`` section 9.7.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

import attrs
import orjson
from twisted.logger import Logger

from convex_backend.application.auth.fetch import Fetched, Fetcher, FetchFailed
from convex_backend.application.auth.providers import is_data_url, same_issuer
from convex_backend.deferreds import Coalescer
from convex_backend.errors import BadRequest, ConvexError, Forbidden, NotFound, Overloaded, RateLimited, Unauthenticated

T = TypeVar("T")

#: How long a document is used before it is fetched again, and how much longer while its provider does not answer.
LIFETIME_SECONDS: Final = 600.0
STALE_SECONDS: Final = 3600.0
#: An unknown ``kid`` makes a key set that is older than this be fetched again.
MIN_AGE_SECONDS: Final = 10.0
#: A failed fetch is not repeated for so long.
FAILURE_SECONDS: Final = 1.0
#: Documents kept; the one that was not used for longest goes first.
MAX_DOCUMENTS: Final = 128
MAX_KEYS: Final = 64
_MAX_SHOWN: Final = 500

_JWKS_TYPES: Final = ("application/json", "application/jwk-set+json")
_KEY_TYPES: Final = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}


@attrs.frozen(slots=True, eq=False)
class VerificationKey:
    """A public key that may verify signatures.

    :param algorithms: those that it may be used with.
    :param key: as PyJWT takes it.
    """

    kid: str | None
    algorithms: frozenset[str]
    key: Any


@attrs.frozen(slots=True, eq=False)
class KeySet:
    """A JSON Web Key Set: its keys that verify signatures by an algorithm known here; others are left out."""

    keys: tuple[VerificationKey, ...]

    def with_kid(self, kid: str, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys that a token with this header may have been signed by."""
        return tuple(key for key in self.keys if key.kid == kid and algorithm in key.algorithms)

    def for_algorithm(self, algorithm: str) -> tuple[VerificationKey, ...]:
        """All keys of *algorithm*, for tokens that name none."""
        return tuple(key for key in self.keys if algorithm in key.algorithms)


def parse_key_set(body: bytes) -> KeySet:
    """:raises ValueError: *body* is no key set."""
    tree = orjson.loads(body)
    keys = tree.get("keys") if isinstance(tree, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError("no array of keys")
    return KeySet(tuple(found for key in keys[:MAX_KEYS] if (found := _parse_key(key)) is not None))


def _parse_key(tree: dict[str, Any]) -> VerificationKey | None:
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    kind = tree.get("kty"), tree.get("crv")
    algorithm = next((name for name, (kty, crv) in _KEY_TYPES.items() if kind in ((kty, crv), (kty, None))), None)
    if algorithm is None or tree.get("use", "sig") != "sig" or tree.get("alg", algorithm) != algorithm:
        return None
    operations = tree.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return None
    kid = tree.get("kid")
    # Only what a public key needs: a set that shows a private key is still used for nothing but verifying.
    public: dict[str, Any] = {name: tree[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in tree}
    try:
        key = PyJWK(public, algorithm).key
    except (PyJWTError, ValueError, TypeError):
        return None
    return VerificationKey(kid if isinstance(kid, str) else None, frozenset((algorithm,)), key)


@attrs.define(slots=True, eq=False)
class _Kept(Generic[T]):
    """A document and when it came; after a failure also until when that stands."""

    value: T | None = None
    at: float = 0.0
    error: Exception | None = None
    failed_at: float = 0.0


class _Documents(Generic[T]):
    """Documents of one kind by URL.

    :param load: fetches and parses one. :param now: monotonic seconds.
    """

    _log = Logger()

    def __init__(self, load: Callable[[str], Awaitable[T]], now: Callable[[], float]) -> None:
        self._load = load
        self._now = now
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._fetches: Coalescer[str, T] = Coalescer()

    async def get(self, url: str, *, newer_than: float | None = None) -> T:
        """The document at *url*.

        :param newer_than: one that is older by so many seconds is fetched again.
        :raises ConvexError: it cannot be had.
        """
        kept = self._kept.get(url)
        now = self._now()
        if kept is not None:
            self._kept.move_to_end(url)
            age = now - kept.at
            lifetime = LIFETIME_SECONDS if newer_than is None else min(LIFETIME_SECONDS, newer_than)
            if kept.value is not None and age < lifetime:
                return kept.value
            if kept.error is not None and now - kept.failed_at < FAILURE_SECONDS:
                return self._instead(url, kept, kept.error, now)
        try:
            return await self._fetches.run(url, lambda: self._fetch(url))
        except ConvexError as error:
            return self._instead(url, self._kept.get(url, _Kept()), error, self._now())

    def _instead(self, url: str, kept: _Kept[T], error: Exception, now: float) -> T:
        if kept.value is None or now - kept.at >= LIFETIME_SECONDS + STALE_SECONDS:
            raise error.with_traceback(None)
        self._log.debug("{url} cannot be fetched, the last answer is used: {error}", url=url, error=error)
        return kept.value

    async def _fetch(self, url: str) -> T:
        try:
            value = await self._load(url)
        except ConvexError as error:
            kept = self._keep(url)
            kept.error, kept.failed_at = error, self._now()
            # Here and not where tokens are refused: once for each time that the provider was asked.
            self._log.warn("an auth provider cannot be used: {error}", error=error.message)
            raise
        kept = self._keep(url)
        kept.value, kept.at, kept.error = value, self._now(), None
        return value

    def _keep(self, url: str) -> _Kept[T]:
        kept = self._kept.setdefault(url, _Kept())
        self._kept.move_to_end(url)
        while len(self._kept) > MAX_DOCUMENTS:
            self._kept.popitem(last=False)
        return kept


class ProviderKeys:
    """The key sets of all providers.

    :param now: monotonic seconds.
    """

    def __init__(self, fetcher: Fetcher, now: Callable[[], float]) -> None:
        self._fetcher = fetcher
        self._key_sets: _Documents[KeySet] = _Documents(self._load_key_set, now)
        self._discovered: _Documents[str] = _Documents(self._discover, now)
        self._data: OrderedDict[str, KeySet] = OrderedDict()

    async def custom(self, url: str) -> KeySet:
        """The key set at the ``jwks`` of a ``customJwt`` provider, a ``data:`` URL perhaps.

        :raises Unauthenticated: ``InvalidAuthHeader``: it cannot be used. :raises Overloaded: its server has trouble.
        """
        return self._of_data(url) if is_data_url(url) else await self._key_sets.get(url)

    async def custom_again(self, url: str) -> KeySet:
        """Likewise, fetched anew unless that was done just now: the present set lacks a key."""
        if is_data_url(url):
            return self._of_data(url)
        return await self._key_sets.get(url, newer_than=MIN_AGE_SECONDS)

    async def discovered(self, issuer: str) -> KeySet:
        """The key set that the discovery document of *issuer* names.

        :raises ConvexError: ``AuthProviderDiscoveryFailed``, its class by the provider's status.
        """
        return await self._key_sets.get(await self._discovered.get(issuer.rstrip("/")))

    async def discovered_again(self, issuer: str) -> KeySet:
        """Likewise, see :meth:`custom_again`."""
        url = await self._discovered.get(issuer.rstrip("/"), newer_than=MIN_AGE_SECONDS)
        return await self._key_sets.get(url, newer_than=MIN_AGE_SECONDS)

    def _of_data(self, url: str) -> KeySet:
        found = self._data.get(url)
        if found is None:
            found = self._data[url] = parse_data_url(url)
            while len(self._data) > MAX_DOCUMENTS:
                self._data.popitem(last=False)
        return found

    async def _load_key_set(self, url: str) -> KeySet:
        try:
            answer = await self._fetcher.get(url)
        except FetchFailed as error:
            raise _unreachable(url, str(error)) from None
        if answer.status != 200:
            text = f"HTTP {answer.status} {answer.reason}".rstrip()
            if answer.status >= 500 or answer.status == 429:
                raise _unreachable(url, text)
            raise _bad_header(_fetch_text(url, text))
        media_type = answer.content_type.partition(";")[0].strip().lower()
        if media_type not in _JWKS_TYPES:
            raise _bad_header(
                f"Invalid Content-Type '{answer.content_type}' when fetching JWKS from '{url}'. "
                "Expected 'application/json' or 'application/jwk-set+json'."
            )
        try:
            return parse_key_set(answer.body)
        except ValueError:
            raise _bad_header(
                f"Invalid JWKS response body from '{url}'. The response is not valid JSON or doesn't match the "
                "expected JWKS format."
            ) from None

    async def _discover(self, issuer: str) -> str:
        try:
            answer = await self._fetcher.get(f"{issuer}/.well-known/openid-configuration")
        except FetchFailed as error:
            text = f"Auth provider discovery of {issuer} failed: {error}"
            raise Overloaded("AuthProviderDiscoveryFailed", text) from None
        if answer.status != 200:
            raise _discovery_error(issuer, answer)
        try:
            tree = orjson.loads(answer.body)
        except ValueError:
            tree = None
        url = tree.get("jwks_uri") if isinstance(tree, dict) else None
        named = tree.get("issuer") if isinstance(tree, dict) else None
        if not isinstance(url, str) or not isinstance(named, str):
            raise _unusable(issuer, "the document has no `issuer` and `jwks_uri`")
        if not same_issuer(issuer, named):
            raise _unusable(issuer, f"the document is of another issuer, {named[:_MAX_SHOWN]}")
        if urlsplit(issuer).scheme == "https" and not url.startswith("https://"):
            raise _unusable(issuer, "its keys are not served over https")
        return url


def parse_data_url(url: str) -> KeySet:
    """The key set in a ``data:`` URL of any media type.

    :raises Unauthenticated: ``InvalidAuthHeader``.
    """
    head, comma, text = url[5:].partition(",")
    body = unquote_to_bytes(text)
    try:
        if not comma:
            raise ValueError("there is no comma")
        if head.strip().lower().endswith(";base64"):
            body = base64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
        return parse_key_set(body)
    except (binascii.Error, ValueError):
        raise _bad_header(
            "Invalid JWKS data URL. Check that it is of the form data:application/json;base64,<base64> or "
            "data:application/json,<percent-encoded JSON>, and that it holds a JWKS."
        ) from None


def _bad_header(text: str) -> Unauthenticated:
    return Unauthenticated("InvalidAuthHeader", text)


def _fetch_text(url: str, cause: str) -> str:
    return f"Could not fetch JWKS from URL '{url}': {cause}. Check that the URL is correct and accessible."


def _unreachable(url: str, cause: str) -> Overloaded:
    """The provider's trouble, not the token's fault: the client should try again with the same token."""
    return Overloaded("AuthProviderUnavailable", _fetch_text(url, cause))


def _unusable(issuer: str, cause: str) -> Unauthenticated:
    return Unauthenticated("AuthProviderDiscoveryFailed", f"Auth provider discovery of {issuer} failed: {cause}")


def _discovery_error(issuer: str, answer: Fetched) -> ConvexError:
    code = "AuthProviderDiscoveryFailed"
    body = answer.body[:_MAX_SHOWN].decode("utf-8", "replace")
    text = f"Auth provider discovery of {issuer} failed: {answer.status} {answer.reason} {body}".rstrip()
    classes: dict[int, type[ConvexError]] = {401: Unauthenticated, 403: Forbidden, 404: NotFound, 429: RateLimited}
    if answer.status in classes:
        return classes[answer.status](code, text)
    return BadRequest(code, text) if 400 <= answer.status < 500 else Overloaded(code, text)
