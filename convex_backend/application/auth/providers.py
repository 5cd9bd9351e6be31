"""The providers of ``auth.config.ts``: which tokens each of them answers for.

A config is checked when it is pushed (:func:`parse_config`) and kept as rows in the form of ``appAuth``, which :func:`provider_of_row` reads back.
Source: ``push.md`` section 7.1, ``runtime.md`` section 9.7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from convex_backend.errors import BadRequest

#: Algorithms that a ``customJwt`` provider may name, and those that tokens of OIDC providers may have.
CUSTOM_ALGORITHMS: Final = ("RS256", "ES256")
OIDC_ALGORITHMS: Final = ("RS256", "EdDSA")

_PREFIX: Final = "auth config file must include a list of provider credentials: "
_SEE: Final = " See https://docs.convex.dev/auth for more."


@attrs.frozen(slots=True)
class OidcProvider:
    """An OpenID Connect issuer, whose keys are found by discovery.

    :param domain: its issuer URL as configured; the scheme may be missing.
    """

    domain: str
    application_id: str

    @property
    def issuer(self) -> str:
        """The issuer URL, with a scheme."""
        return with_scheme(self.domain)

    def matches(self, issuer: str, audience: Sequence[str]) -> bool:
        """Whether a token with these claims is for this provider."""
        return same_issuer(self.issuer, issuer) and self.application_id in audience

    def __str__(self) -> str:
        return f"OIDC(domain={self.issuer}, app_id={self.application_id})"

    def to_json(self) -> dict[str, Any]:
        """As in ``appAuth``."""
        return {"applicationID": self.application_id, "domain": self.domain}


@attrs.frozen(slots=True)
class CustomJwtProvider:
    """An issuer whose keys have a known place.

    :param jwks: URL of its key set, ``http``, ``https`` or ``data``; the scheme may be missing.
    :param application_id: required audience, or ``None`` for any.
    """

    issuer_text: str
    jwks: str
    algorithm: str
    application_id: str | None = None

    @property
    def issuer(self) -> str:
        """The issuer, with a scheme."""
        return with_scheme(self.issuer_text)

    @property
    def jwks_url(self) -> str:
        """Where the keys are, with a scheme."""
        return self.jwks if is_data_url(self.jwks) else with_scheme(self.jwks)

    def matches(self, issuer: str, audience: Sequence[str]) -> bool:
        """Whether a token with these claims is for this provider."""
        fits = self.application_id is None or self.application_id in audience
        return fits and same_issuer(self.issuer, issuer)

    def __str__(self) -> str:
        return f"CustomJWT(issuer={self.issuer}, app_id={self.application_id or 'none'})"

    def to_json(self) -> dict[str, Any]:
        """As in ``appAuth``."""
        return {
            "type": "customJwt",
            "applicationID": self.application_id,
            "issuer": self.issuer_text,
            "jwks": self.jwks,
            "algorithm": self.algorithm,
        }


Provider = OidcProvider | CustomJwtProvider


def with_scheme(text: str) -> str:
    """*text* with ``https://`` in front if it names no scheme."""
    return text if "://" in text else f"https://{text}"


def is_data_url(text: str) -> bool:
    """Whether *text* holds its document itself."""
    return text[:5].lower() == "data:"


def same_issuer(configured: str, claimed: str) -> bool:
    """Whether two issuers are one: a trailing ``/`` and a missing scheme make no difference."""
    return with_scheme(configured).rstrip("/") == with_scheme(claimed).rstrip("/")


def provider_of_row(tree: Mapping[str, Any]) -> Provider:
    """The provider that :meth:`to_json` printed."""
    if tree.get("type") == "customJwt":
        return CustomJwtProvider(tree["issuer"], tree["jwks"], tree["algorithm"], tree["applicationID"])
    return OidcProvider(tree["domain"], tree["applicationID"])


# -- checking a config ------------------------------------------------------------------------------


def parse_config(config: Any) -> list[Provider]:
    """The providers that ``auth.config.js`` exports.

    :param config: its default export as JSON.
    :raises BadRequest: ``AuthConfigNotMatchingSchemaError`` for a wrong shape, ``InvalidAuthConfig`` for a URL that makes no sense.
    """
    providers = config.get("providers") if isinstance(config, dict) else None
    if not isinstance(providers, list):
        raise _mismatch("`providers` must be an array.")
    return [_provider(index, tree) for index, tree in enumerate(providers)]


def _mismatch(text: str) -> BadRequest:
    return BadRequest("AuthConfigNotMatchingSchemaError", f"{_PREFIX}{text}{_SEE}")


def _provider(index: int, tree: Any) -> Provider:
    where = f"Provider at index {index}"
    if not isinstance(tree, dict):
        raise _mismatch(f"{where} must be an object.")
    kind = tree.get("type")
    if kind not in (None, "oidc", "customJwt"):
        raise _mismatch(f"{where} has unexpected 'type' value '{kind}'.")
    return _custom(where, tree) if kind == "customJwt" else _oidc(where, tree)


def _application_id(where: str, tree: Mapping[str, Any], *, required: bool) -> str | None:
    misspelt = [name for name in tree if name != "applicationID" and name.lower() == "applicationid"]
    value = tree.get("applicationID")
    if misspelt or (required and value is None):
        raise _mismatch(
            f"{where} must have applicationID property spelled lowercase 'application', capital I, capital D."
        )
    if value is not None and not isinstance(value, str):
        raise _mismatch(f"{where} must have a string as its applicationID.")
    return value


def _text(where: str, tree: Mapping[str, Any], name: str) -> str:
    value = tree.get(name)
    if not isinstance(value, str) or not value:
        raise _mismatch(f"{where} must have a string '{name}'.")
    return value


def _oidc(where: str, tree: Mapping[str, Any]) -> OidcProvider:
    for name in ("issuer", "jwks", "algorithm"):
        if name in tree:
            article = "an" if name in ("issuer", "algorithm") else "a"
            raise _mismatch(f"{where} is oidc so cannot have {article} '{name}' specified.")
    application = _application_id(where, tree, required=True)
    assert application is not None
    domain = _text(where, tree, "domain")
    _check_url("provider domain", domain)
    return OidcProvider(domain, application)


def _custom(where: str, tree: Mapping[str, Any]) -> CustomJwtProvider:
    if "domain" in tree:
        raise _mismatch(f"{where} is a customJwt so cannot have a 'domain' specified.")
    application = _application_id(where, tree, required=False)
    issuer = _text(where, tree, "issuer")
    jwks = _text(where, tree, "jwks")
    algorithm = tree.get("algorithm")
    if algorithm not in CUSTOM_ALGORITHMS:
        raise _mismatch(f"{where} must have 'RS256' or 'ES256' as its 'algorithm'.")
    # The issuer is only compared, never fetched.
    if not is_data_url(jwks):
        _check_url("JWKS", jwks)
    return CustomJwtProvider(issuer, jwks, algorithm, application)


def _check_url(what: str, text: str) -> None:
    """:raises BadRequest: *text* is no address of a web server; a ``data:`` key set is looked at when a token comes."""
    try:
        parts = urlsplit(with_scheme(text))
        parts.port  # noqa: B018 - checks the port
    except ValueError as error:
        raise _bad_url(what, text, str(error)) from None
    if parts.scheme not in ("http", "https"):
        raise _bad_url(what, text, f"unsupported scheme '{parts.scheme}'")
    if not parts.hostname or any(character.isspace() for character in text):
        raise _bad_url(what, text, "there is no valid host")
    if parts.username is not None or (what == "provider domain" and (parts.query or parts.fragment)):
        raise _bad_url(what, text, "credentials, a query and a fragment have no place in it")


def _bad_url(what: str, text: str, cause: str) -> BadRequest:
    return BadRequest("InvalidAuthConfig", f'{_PREFIX}Invalid {what} URL "{text}": {cause}.')
