"""Users' tokens: from a JWT to the identity that it proves, or the error that says what is wrong with it.

::

    three parts? ─► iss? ─► provider that answers for iss and aud ─► key of the provider ─► signature ─► times ─► identity
                                                                        └─ unknown: fetch its keys again, once

Source: ``runtime.md`` section 9.7, ``sync.md`` section 6.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import orjson

from convex_backend.application.auth.claims import BadClaim, custom_attributes, oidc_attributes
from convex_backend.application.auth.jwks import ProviderKeys, VerificationKey
from convex_backend.application.auth.providers import OIDC_ALGORITHMS, CustomJwtProvider, OidcProvider, Provider
from convex_backend.application.types import Identity
from convex_backend.errors import Unauthenticated

#: Clocks may differ by so much.
LEEWAY_SECONDS: Final = 5.0
#: A longer text is not looked at.
MAX_TOKEN_CHARACTERS: Final = 64 * 1024

_NOT_A_JWT: Final = (
    "Could not parse JWT payload. Check that the token is a valid JWT format with three base64-encoded parts "
    "separated by dots."
)
_NO_ISSUER: Final = (
    "Missing issuer claim ('iss') in JWT payload. The JWT must include an 'iss' claim that matches one of your "
    "configured auth providers."
)
_NO_KID: Final = "Could not decode token. JWT may be missing a 'kid' (key ID) header."
_NO_PROVIDER: Final = "No auth provider found matching the given token"
_OIDC_CLAIM: Final = (
    "Could not verify OIDC token claim. Check that the token signature is valid and the token hasn't expired."
)
_OIDC_PARSE: Final = "Could not parse as OIDC ID token."


@attrs.frozen(slots=True)
class Token:
    """A JWT taken apart, nothing of it verified.

    :param signed: the bytes that the signature is over.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    text: str
    signed: bytes
    signature: bytes

    @property
    def audience(self) -> Sequence[str]:
        """The ``aud`` claim as a list."""
        value = self.claims.get("aud")
        if isinstance(value, str):
            return (value,)
        return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()

    @property
    def algorithm(self) -> str:
        """The ``alg`` header, ``""`` if there is none."""
        value = self.header.get("alg")
        return value if isinstance(value, str) else ""

    @property
    def kid(self) -> str | None:
        """The ``kid`` header."""
        value = self.header.get("kid")
        return value if isinstance(value, str) else None


def parse_token(text: str) -> Token:
    """:raises Unauthenticated: ``InvalidAuthHeader``: *text* is no JWT."""
    parts = text.split(".")
    if len(text) > MAX_TOKEN_CHARACTERS or len(parts) != 3:
        raise bad_token(_NOT_A_JWT)
    try:
        header, claims, signature = (_decode(part) for part in parts)
        token = Token(
            orjson.loads(header), orjson.loads(claims), text, f"{parts[0]}.{parts[1]}".encode("ascii"), signature
        )
    except (binascii.Error, ValueError):
        raise bad_token(_NOT_A_JWT) from None
    if not isinstance(token.header, dict) or not isinstance(token.claims, dict):
        raise bad_token(_NOT_A_JWT)
    return token


def _decode(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def bad_token(text: str) -> Unauthenticated:
    """The error of a token that cannot be used."""
    return Unauthenticated("InvalidAuthHeader", text)


class Authenticator:
    """Verifies the tokens of users.

    :param providers: reads the deployed auth config.
    :param now_seconds: wall clock, unix seconds.
    :param redacted: clients are not told of the config and of key ids (``runtime.md`` section 8.4).
    """

    def __init__(
        self,
        providers: Callable[[], Awaitable[Sequence[Provider]]],
        keys: ProviderKeys,
        now_seconds: Callable[[], float],
        *,
        redacted: bool = False,
    ) -> None:
        self._providers = providers
        self._keys = keys
        self._now_seconds = now_seconds
        self._redacted = redacted

    async def authenticate(self, text: str) -> Identity:
        """The user whom the JWT *text* names.

        :raises Unauthenticated: the token does not prove who they are.
        :raises ConvexError: of any other class: its provider has trouble, or cannot be used.
        """
        token = parse_token(text)
        issuer = token.claims.get("iss")
        if not isinstance(issuer, str):
            raise bad_token(_NO_ISSUER)
        provider = self._matching(await self._providers(), issuer, token.audience)
        if isinstance(provider, CustomJwtProvider):
            return await self._custom(token, provider)
        return await self._oidc(token, provider)

    def _matching(self, providers: Sequence[Provider], issuer: str, audience: Sequence[str]) -> Provider:
        for provider in providers:
            if provider.matches(issuer, audience):
                return provider
        if self._redacted:
            detail = ""
        elif providers:
            shown = ", ".join(map(str, providers))
            detail = f". Check that your JWT's issuer and audience match one of your configured providers: [{shown}]"
        else:
            detail = " (no providers configured). Check convex/auth.config.ts."
        raise Unauthenticated("NoAuthProvider", _NO_PROVIDER + detail)

    # -- custom JWTs --------------------------------------------------------------------------------

    async def _custom(self, token: Token, provider: CustomJwtProvider) -> Identity:
        kid, algorithm = token.kid, provider.algorithm
        if kid is None:
            raise bad_token(_NO_KID)
        url = provider.jwks_url
        keys = (await self._keys.custom(url)).with_kid(kid, algorithm)
        if not keys:
            keys = (await self._keys.custom_again(url)).with_kid(kid, algorithm)
        if token.algorithm != algorithm or not _signed_by(token, keys):
            raise bad_token(self._wrong_key(kid))
        claims = token.claims
        subject = claims.get("sub")
        if not isinstance(subject, str):
            raise bad_token("Missing subject")
        if "exp" not in claims:
            raise bad_token("Missing expiry")
        now = self._now_seconds()
        expires = self._time(claims, "exp", now)
        if now > expires + LEEWAY_SECONDS:
            raise bad_token(f"Could not validate token: Token expired {int(now - expires)} seconds ago")
        for name in ("nbf", "iat"):
            begins = self._time(claims, name, now) if name in claims else now
            if begins > now + LEEWAY_SECONDS:
                raise bad_token(f"Could not validate token: Token will be valid in {int(begins - now)} seconds")
        return Identity("user", custom_attributes(claims), expires, token=token.text)

    def _wrong_key(self, kid: str) -> str:
        if self._redacted:
            return "Could not decode token."
        return (
            f"Could not decode token. The JWT's 'kid' (key ID) header is '{kid}', "
            "does this key match any key in the provider's JWKS?"
        )

    def _time(self, claims: Mapping[str, Any], name: str, now: float) -> float:
        value = claims[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise bad_token(f"Could not validate token: the claim '{name}' is not a number")
        return float(value)

    # -- OIDC ---------------------------------------------------------------------------------------

    async def _oidc(self, token: Token, provider: OidcProvider) -> Identity:
        claims = token.claims
        subject, expires = claims.get("sub"), claims.get("exp")
        if not isinstance(subject, str):
            raise bad_token(f"{_OIDC_PARSE} Missing subject")
        if isinstance(expires, bool) or not isinstance(expires, int | float):
            raise bad_token(f"{_OIDC_PARSE} Missing expiry")
        try:
            attributes = oidc_attributes(claims)
        except BadClaim as error:
            raise bad_token(f"{_OIDC_PARSE} Check the token's claims: {error}.") from None
        if not await self._oidc_signed(token, provider):
            raise Unauthenticated("Unauthenticated", _OIDC_CLAIM)
        begins = claims.get("nbf")
        now = self._now_seconds()
        early = isinstance(begins, int | float) and begins > now + LEEWAY_SECONDS
        # Other audiences are not trusted: a token for several was not made for this app alone.
        if now >= expires or early or tuple(token.audience) != (provider.application_id,):
            raise Unauthenticated("Unauthenticated", _OIDC_CLAIM)
        return Identity("user", attributes, float(expires), token=token.text)

    async def _oidc_signed(self, token: Token, provider: OidcProvider) -> bool:
        algorithm, kid, issuer = token.algorithm, token.kid, provider.issuer
        if algorithm not in OIDC_ALGORITHMS:
            return False
        keys = await self._keys.discovered(issuer)
        if kid is None:
            # Some issuers have one key and do not name it; after a rotation the present one may be another.
            if _signed_by(token, keys.for_algorithm(algorithm)):
                return True
            return _signed_by(token, (await self._keys.discovered_again(issuer)).for_algorithm(algorithm))
        found = keys.with_kid(kid, algorithm)
        if not found:
            found = (await self._keys.discovered_again(issuer)).with_kid(kid, algorithm)
        return _signed_by(token, found)


@functools.cache
def _algorithms() -> dict[str, Any]:
    # PyJWT takes a while to load: not before the first token.
    from jwt.algorithms import get_default_algorithms

    return get_default_algorithms()


def _signed_by(token: Token, keys: Sequence[VerificationKey]) -> bool:
    if "crit" in token.header:
        return False  # extensions that must be understood, and are not
    algorithm = _algorithms().get(token.algorithm)
    if algorithm is None:
        return False
    return any(
        token.algorithm in key.algorithms and algorithm.verify(token.signed, key.key, token.signature) for key in keys
    )
