"""Admin keys: made, printed and checked.

An admin key is ``<instance name>|<lower-case hex>``. The hex part is

::

    u8 version=1 | u8 flags (1: read-only) | u64 issued, unix seconds, big endian | 16 random bytes | 32 bytes HMAC-SHA256

The HMAC is over everything before it and the instance name, under a key that is derived from the instance secret for this one purpose; so a
key is bound to its deployment, cannot be altered, and ends only with the secret. Source: ``admin_keys.md`` sections 2, 4 and 7.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from convex_backend.application.operations import check_operation
from convex_backend.application.sealing import derive_key
from convex_backend.application.types import Identity
from convex_backend.errors import BadRequest, Unauthenticated

SECRET_BYTES: Final = 32
_VERSION: Final = 1
_FLAG_READ_ONLY: Final = 1
_RANDOM_BYTES: Final = 16
_TAG_BYTES: Final = 32
_HEAD_BYTES: Final = 1 + 1 + 8 + _RANDOM_BYTES
_KEY_BYTES: Final = _HEAD_BYTES + _TAG_BYTES
# Longer than any key of ours with the longest instance name; a longer text is not looked at.
_MAX_KEY_CHARACTERS: Final = 4096

_ADMIN: Final = Identity("admin")
_READ_ONLY_ADMIN: Final = Identity("admin", read_only=True)


def parse_secret(text: str) -> bytes:
    """The instance secret from its text.

    :param text: 64 hex digits.
    :raises ValueError: with a text fit for the operator, which does not repeat the secret.
    """
    try:
        secret = binascii.unhexlify(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ValueError("must be 64 hexadecimal digits (openssl rand -hex 32)")
    return secret


def check_instance_name(name: str) -> str:
    """:returns: *name* itself.

    :raises ValueError: when it cannot stand before the bar of an admin key.
    """
    if not name or len(name) > 200 or not name.isascii() or not name.isprintable() or name != name.strip():
        raise ValueError("must be 1 to 200 printable ASCII characters without space at either end")
    if "|" in name or ":" in name:
        raise ValueError('must not contain "|" or ":"')
    return name


def check_literal_key(key: str) -> str:
    """:returns: *key* itself, the literal admin key that the operator chose.

    :raises ValueError: when it could not travel in an ``Authorization`` header with an acting user after it.
    """
    if not key or len(key) > _MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ValueError("must be printable ASCII characters without space at either end")
    secret_part = key.partition("|")[2] if "|" in key else key
    if not secret_part or ":" in secret_part:
        raise ValueError('must not be empty or hold a ":" (after its "|", if it has one)')
    return key


def split_acting_user(credentials: str) -> tuple[str, str | None]:
    """Part an ``Authorization: Convex …`` value into key and acting user.

    :param credentials: what follows the scheme.
    :returns: the key with its type prefix still on it, and the base64 text after the first ``:`` of the right part, or ``None``.
    """
    left, bar, right = credentials.partition("|") if "|" in credentials else ("", "", credentials)
    key, colon, acting = right.partition(":")
    return left + bar + key, acting if colon else None


def strip_type(key: str) -> str:
    """Drop a deployment type (``prod:``, ``dev:``, ``preview:…``) from the left part of *key* (``admin_keys.md`` section 2).

    ``preview:`` and ``project:`` keys lose their whole left part: it names a team and a project, not an instance.
    """
    left, bar, right = key.partition("|")
    if not bar:
        return key
    kind, colon, name = left.partition(":")
    if not colon:
        return key
    return right if kind in ("preview", "project") else f"{name}|{right}"


@attrs.define(slots=True, eq=False)
class Keys:
    """Issues and checks the admin keys of one deployment.

    :param instance_name: the name that its keys carry.
    :param secret: the instance secret, 32 bytes.
    :param random_bytes: source of unpredictable bytes, ``os.urandom`` in production.
    :param now_seconds: unix time.
    :param literal_key: a key that the operator chose, accepted beside the sealed ones.
    """

    instance_name: str
    _secret: bytes = attrs.field(repr=False)
    _random_bytes: Callable[[int], bytes]
    _now_seconds: Callable[[], float]
    _literal_key: str | None = attrs.field(default=None, repr=False)
    _mac_key: bytes = attrs.field(init=False, repr=False)
    _literal: bytes | None = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._mac_key = derive_key(self._secret, "admin key")
        self._literal = None if self._literal_key is None else self._literal_key.encode()

    def _tag(self, head: bytes) -> bytes:
        return hmac.digest(self._mac_key, head + self.instance_name.encode(), hashlib.sha256)

    def issue(self, *, read_only: bool = False) -> str:
        """A new admin key. It does not expire; it ends with the instance secret.

        :param read_only: the key allows :data:`READ_ONLY_OPERATIONS` only.
        """
        flags = _FLAG_READ_ONLY if read_only else 0
        issued = max(1, int(self._now_seconds())).to_bytes(8, "big")
        head = bytes((_VERSION, flags)) + issued + self._random_bytes(_RANDOM_BYTES)
        return f"{self.instance_name}|{(head + self._tag(head)).hex()}"

    def check_admin(self, key: str) -> Identity:
        """Who presents *key*, which has no acting user on it (:func:`split_acting_user`).

        :returns: an ``admin`` identity, ``read_only`` for a key that was issued so.
        :raises Unauthenticated: ``BadAdminKey``, the same for every reason.
        """
        identity = self._check_literal(key)
        sealed = self._check_sealed(key)
        identity = identity or sealed
        if identity is None:
            raise Unauthenticated("BadAdminKey", "The provided admin key was invalid for this instance")
        return identity

    def _check_literal(self, key: str) -> Identity | None:
        if self._literal is None or len(key) > _MAX_KEY_CHARACTERS:
            return None
        # compare_digest takes text in ASCII only; a key has nothing else, so what cannot be encoded stays unequal as bytes.
        exact = hmac.compare_digest(key.encode("utf-8", "surrogatepass"), self._literal)
        stripped = hmac.compare_digest(strip_type(key).encode("utf-8", "surrogatepass"), self._literal)
        return _ADMIN if exact or stripped else None

    def _check_sealed(self, key: str) -> Identity | None:
        if len(key) > _MAX_KEY_CHARACTERS:
            return None
        name, bar, text = strip_type(key).rpartition("|")
        try:
            sealed = binascii.unhexlify(text)
        except ValueError:
            return None
        if len(sealed) != _KEY_BYTES:
            return None
        head, tag = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        genuine = hmac.compare_digest(self._tag(head), tag)
        # A key without a bar carries its name inside, which the tag has checked; otherwise the name is public text.
        if not genuine or (bar and name != self.instance_name) or head[0] != _VERSION or head[1] & ~_FLAG_READ_ONLY:
            return None
        return _READ_ONLY_ADMIN if head[1] & _FLAG_READ_ONLY else _ADMIN


def acting_identity(admin: Identity, attributes: Mapping[str, object]) -> Identity:
    """*admin* as the user described by *attributes* (``admin_keys.md`` section 2, ``sync.md`` section 3).

    :param attributes: needs a text ``tokenIdentifier``, or ``issuer`` and ``subject``, from which it is made.
    :raises BadRequest: ``InvalidUserIdentity`` when they do not say who the user is.
    :raises Forbidden: when the key does not allow to act as a user.
    """
    check_operation(admin, "ActAsUser")
    known = dict(attributes)
    issuer, subject = known.get("issuer"), known.get("subject")
    if "tokenIdentifier" not in known and isinstance(issuer, str) and isinstance(subject, str):
        known["tokenIdentifier"] = f"{issuer}|{subject}"
    if not isinstance(known.get("tokenIdentifier"), str):
        raise BadRequest("InvalidUserIdentity", 'Either "tokenIdentifier" or "issuer" and "subject" must be set')
    return Identity("acting_user", attributes=tuple(known.items()), read_only=admin.read_only)
