"""From the claims of a verified token to the identity object that ``ctx.auth.getUserIdentity()`` gives (``runtime.md`` section 9.7)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

#: Attributes of an OIDC identity by claim: their names, and the type that the claim must have.
_OIDC_ATTRIBUTES: Final[dict[str, tuple[str, type]]] = {
    "name": ("name", str),
    "given_name": ("givenName", str),
    "family_name": ("familyName", str),
    "nickname": ("nickname", str),
    "preferred_username": ("preferredUsername", str),
    "profile": ("profileUrl", str),
    "picture": ("pictureUrl", str),
    "website": ("websiteUrl", str),
    "email": ("email", str),
    "email_verified": ("emailVerified", bool),
    "gender": ("gender", str),
    "birthdate": ("birthday", str),
    "zoneinfo": ("timezone", str),
    "locale": ("language", str),
    "phone_number": ("phoneNumber", str),
    "phone_number_verified": ("phoneNumberVerified", bool),
}
#: Claims about the token or the login, not about the user, and those that have a form of their own.
_OIDC_STANDARD: Final = frozenset(
    (
        *_OIDC_ATTRIBUTES,
        *("iss", "sub", "aud", "exp", "iat", "nbf", "jti"),
        *("auth_time", "nonce", "acr", "amr", "azp", "at_hash", "c_hash"),
        *("middle_name", "address", "updated_at"),
        # Changes with every token of the provider that sends it: identities would never be equal.
        "fva",
    )
)
_REGISTERED: Final = frozenset(("iss", "sub", "aud", "exp", "nbf", "iat", "jti"))

Attributes = tuple[tuple[str, object], ...]


class BadClaim(ValueError):
    """A claim has not the type that its standard says."""


def _user(claims: Mapping[str, Any]) -> dict[str, object]:
    issuer, subject = claims["iss"], claims["sub"]
    return {"tokenIdentifier": f"{issuer}|{subject}", "issuer": issuer, "subject": subject}


def custom_attributes(claims: Mapping[str, Any]) -> Attributes:
    """The identity behind a custom JWT: who it is, and every other claim, objects flattened with dots.

    :param claims: with text ``iss`` and ``sub``.
    """
    found: dict[str, object] = {}
    for name, value in claims.items():
        if name not in _REGISTERED:
            _flatten(name, value, found)
    # Last: no claim of the issuer's own may pass for who the user is.
    found.update(_user(claims))
    return tuple(found.items())


def _flatten(name: str, value: Any, found: dict[str, object]) -> None:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            _flatten(f"{name}.{key}", part, found)
    else:
        found[name] = value


def oidc_attributes(claims: Mapping[str, Any]) -> Attributes:
    """The identity behind an ID token: standard claims under Convex's names, all others under their own.

    :param claims: with text ``iss`` and ``sub``.
    :raises BadClaim: a standard claim has another type than its standard says.
    """
    found: dict[str, object] = {}
    for name, value in claims.items():
        # Texts in further languages, ``name#ja``, have no place in the identity.
        if name not in _OIDC_STANDARD and name.partition("#")[0] not in _OIDC_ATTRIBUTES:
            found[name] = value
    for claim, (name, kind) in _OIDC_ATTRIBUTES.items():
        value = claims.get(claim)
        if value is not None:
            found[name] = _boolean(claim, value) if kind is bool else _checked(claim, value, kind)
    address = claims.get("address")
    if address is not None:
        formatted = _checked("address", address, dict).get("formatted")
        if formatted is not None:
            found["address"] = _checked("address.formatted", formatted, str)
    updated = claims.get("updated_at")
    if updated is not None:
        found["updatedAt"] = _timestamp(updated)
    found.update(_user(claims))
    return tuple(found.items())


def _checked(claim: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise BadClaim(f"the claim '{claim}' has an unexpected type")
    return value


def _boolean(claim: str, value: Any) -> bool:
    # Some providers send the word.
    if isinstance(value, str) and value in ("true", "false"):
        return value == "true"
    found: bool = _checked(claim, value, bool)
    return found


def _timestamp(value: Any) -> str:
    """RFC 3339. Some providers send such a text instead of seconds."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).isoformat()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        pass
    raise BadClaim("the claim 'updated_at' is no time")
