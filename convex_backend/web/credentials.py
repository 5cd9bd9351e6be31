"""From a request to the identity behind it: every row of the tables of ``http_api.md`` section 2.3.

What is in the head of the request is checked before its body is unpacked or parsed, so that a wrong key costs nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import orjson
from twisted.web.http import Request

from convex_backend.application.application import Application
from convex_backend.application.keys import acting_identity, split_acting_user
from convex_backend.application.types import Identity
from convex_backend.errors import BadRequest, Forbidden

_MIN_CHARACTERS: Final = 7
#: Three parts in base64url; an admin key has a bar, or no point at all.
_JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
_MALFORMED: Final = "Malformed Authorization header."


def identity_of_head(application: Application, request: Request, *, admin_route: bool = False) -> Identity | str | None:
    """Who the head of *request* says it is.

    :param admin_route: only admins may call the route: a ``Bearer`` token without the shape of a JWT is an admin key there.
    :returns: an admin's identity; the JWT of a user, still to be verified; or ``None`` for a head without credentials.
    :raises ConvexError: as in the table of section 2.3.
    """
    header = request.requestHeaders.getRawHeaders(b"authorization")
    if header is None:
        if request.args and (keys := request.args.get(b"adminKey")):
            return application.keys.check_admin(str(keys[0], "utf-8", "replace"))
        return None
    value = header[0]
    if len(value) < _MIN_CHARACTERS:
        raise BadRequest("InvalidHeaderFailure", "Invalid authentication header")
    text = value.decode("latin-1")
    if not text.isascii() or not text.isprintable():
        raise BadRequest("HeaderParseFailure", _MALFORMED)
    scheme, _, credentials = text.partition(" ")
    scheme = scheme.lower()
    if scheme == "bearer":
        token = credentials.strip()
        return _admin(application, token) if admin_route and not _JWT.fullmatch(token) else token
    if scheme != "convex":
        raise BadRequest("InvalidAdminKey", "Invalid admin key")
    return _admin(application, credentials.strip())


def identity_of_body(application: Application, body: Any) -> Identity | None:
    """The admin whose key is the ``adminKey`` member of *body*, if there is one.

    :raises Unauthenticated: ``BadAdminKey``.
    """
    key = body.get("adminKey") if isinstance(body, dict) else None
    return application.keys.check_admin(key) if isinstance(key, str) else None


def check_is_admin(application: Application, identity: Identity) -> None:
    """:raises Forbidden: ``BadDeployKey``: nobody who has shown a key of this deployment."""
    if not identity.is_admin:
        raise Forbidden(
            "BadDeployKey",
            f"The provided deploy key was invalid for deployment '{application.settings.instance_name}'. "
            "Double check that the environment this key was generated for matches the desired deployment.",
        )


def _admin(application: Application, credentials: str) -> Identity:
    key, acting = split_acting_user(credentials)
    identity = application.keys.check_admin(key)
    if acting is None:
        return identity
    try:
        attributes = orjson.loads(base64.b64decode(acting, validate=True))
    except (binascii.Error, ValueError):
        raise BadRequest("HeaderParseFailure", _MALFORMED) from None
    if not isinstance(attributes, dict):
        raise BadRequest("HeaderParseFailure", _MALFORMED)
    return acting_identity(identity, attributes)
