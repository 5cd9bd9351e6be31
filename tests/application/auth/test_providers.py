"""What ``auth.config.ts`` may say (``push.md`` section 7.1, ``runtime.md`` section 9.7)."""

from __future__ import annotations

from typing import Any

import pytest

from convex_backend.application.auth.providers import OidcProvider, parse_config, provider_of_row
from tests.application.auth.support import error_of

PREFIX = "auth config file must include a list of provider credentials: "
SHAPE = "AuthConfigNotMatchingSchemaError"
SPELLED = "Provider at index 0 must have applicationID property spelled lowercase 'application', capital I, capital D."
CUSTOM = {"type": "customJwt", "issuer": "https://i", "jwks": "https://i/jwks", "algorithm": "ES256"}


def test_both_kinds() -> None:
    """7.1: the forms that `appAuth` echoes; `type` of an OIDC provider may be absent or `oidc`."""
    config = {
        "providers": [
            {"domain": "i.test", "applicationID": "a"},
            {"type": "oidc", "domain": "https://j", "applicationID": "b", "comment": "ignored"},
            CUSTOM,
            {**CUSTOM, "jwks": "data:,{}", "algorithm": "RS256", "applicationID": "c"},
        ]
    }
    providers = parse_config(config)
    rows = [provider.to_json() for provider in providers]
    assert rows == [
        {"domain": "i.test", "applicationID": "a"},
        {"domain": "https://j", "applicationID": "b"},
        {**CUSTOM, "applicationID": None},
        {**CUSTOM, "jwks": "data:,{}", "algorithm": "RS256", "applicationID": "c"},
    ]
    assert [provider_of_row(row) for row in rows] == providers
    assert list(map(str, providers)) == [
        "OIDC(domain=https://i.test, app_id=a)",
        "OIDC(domain=https://j, app_id=b)",
        "CustomJWT(issuer=https://i, app_id=none)",
        "CustomJWT(issuer=https://i, app_id=c)",
    ]
    assert isinstance(providers[0], OidcProvider) and providers[0].issuer == "https://i.test"


def test_no_providers() -> None:
    """An empty list is a config."""
    assert parse_config({"providers": []}) == []


@pytest.mark.parametrize(
    ("config", "code", "text"),
    [
        ([], SHAPE, "`providers` must be an array."),
        ({}, SHAPE, "`providers` must be an array."),
        ({"providers": {}}, SHAPE, "`providers` must be an array."),
        ({"providers": ["x"]}, SHAPE, "Provider at index 0 must be an object."),
        ({"providers": [{"domain": "https://i"}]}, SHAPE, SPELLED),
        ({"providers": [{"domain": "https://i", "applicationId": "a"}]}, SHAPE, SPELLED),
        ({"providers": [{**CUSTOM, "applicationid": "a"}]}, SHAPE, SPELLED),
        ({"providers": [CUSTOM, {"type": "x"}]}, SHAPE, "Provider at index 1 has unexpected 'type' value 'x'"),
        (
            {"providers": [{**CUSTOM, "domain": "https://i"}]},
            SHAPE,
            "Provider at index 0 is a customJwt so cannot have a 'domain' specified",
        ),
        (
            {"providers": [{"domain": "https://i", "issuer": "https://i", "applicationID": "a"}]},
            SHAPE,
            "Provider at index 0 is oidc so cannot have an 'issuer' specified.",
        ),
        ({"providers": [{"applicationID": "a"}]}, SHAPE, "Provider at index 0 must have a string 'domain'."),
        (
            {"providers": [{"domain": 1, "applicationID": "a"}]},
            SHAPE,
            "Provider at index 0 must have a string 'domain'.",
        ),
        ({"providers": [{"domain": "x", "applicationID": 1}]}, SHAPE, "must have a string as its applicationID."),
        ({"providers": [{**CUSTOM, "jwks": None}]}, SHAPE, "Provider at index 0 must have a string 'jwks'."),
        ({"providers": [{**CUSTOM, "issuer": ""}]}, SHAPE, "Provider at index 0 must have a string 'issuer'."),
        ({"providers": [{**CUSTOM, "algorithm": "HS256"}]}, SHAPE, "'RS256' or 'ES256' as its 'algorithm'."),
        (
            {"providers": [{"domain": "ftp://x", "applicationID": "a"}]},
            "InvalidAuthConfig",
            'Invalid provider domain URL "ftp://x": ',
        ),
        (
            {"providers": [{"domain": "https://x:y", "applicationID": "a"}]},
            "InvalidAuthConfig",
            'Invalid provider domain URL "https://x:y": ',
        ),
        (
            {"providers": [{"domain": "not a host", "applicationID": "a"}]},
            "InvalidAuthConfig",
            'Invalid provider domain URL "not a host": ',
        ),
        ({"providers": [{**CUSTOM, "jwks": "file:///x"}]}, "InvalidAuthConfig", 'Invalid JWKS URL "file:///x": '),
    ],
)
def test_bad_configs(config: Any, code: str, text: str) -> None:
    """9.7: the text says which provider and what about it."""
    kind, found, message = error_of(lambda: parse_config(config))
    assert (kind, found) == ("BadRequest", code)
    assert message.startswith(PREFIX)
    assert text in message
