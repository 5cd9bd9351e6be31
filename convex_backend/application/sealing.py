"""The seal for what clients carry but must neither read nor forge, and the derived keys behind every kind of token.

Source: ``admin_keys.md`` section 7, ``runtime.md`` section 3.4.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final, Protocol


def derive_key(secret: bytes, purpose: str) -> bytes:
    """A key of its own for each purpose, so that a token of one kind never passes for another.

    :param secret: the instance secret, 32 bytes.
    :returns: 64 bytes.
    """
    return hmac.digest(secret, b"convex-backend/" + purpose.encode(), hashlib.sha512)


class _Cipher(Protocol):
    def encrypt(self, data: bytes, associated_data: list[bytes]) -> bytes: ...

    def decrypt(self, data: bytes, associated_data: list[bytes]) -> bytes: ...


class BrokenSeal(ValueError):
    """A text that this deployment did not seal for this purpose, or that was altered."""


class Sealer:
    """Seals short positions that clients hand back (cursors, journals): hidden, unforgeable and deterministic.

    Equal bytes give equal texts, since clients compare cursors and equal journals share one live query; AES-SIV is made for that. Each purpose
    has a key of its own, and the instance name is part of every seal.

    :param secret: the instance secret, 32 bytes.
    :param instance_name: as in :class:`~convex_backend.application.settings.Settings`.
    """

    _VERSION: Final = 1

    def __init__(self, secret: bytes, instance_name: str) -> None:
        self._secret = secret
        self._bound = [bytes((self._VERSION,)), instance_name.encode()]
        self._ciphers: dict[str, _Cipher] = {}

    def _cipher(self, purpose: str) -> _Cipher:
        cipher = self._ciphers.get(purpose)
        if cipher is None:
            # Not needed before the first cursor: kept out of the start-up path.
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV

            cipher = self._ciphers[purpose] = AESSIV(derive_key(self._secret, f"seal/{purpose}"))
        return cipher

    def seal(self, purpose: str, data: bytes) -> str:
        """:param purpose: from a fixed set of names, such as ``cursor`` or ``journal``; each has a key.

        :returns: URL-safe text, about 4/3 of ``len(data) + 18``.
        """
        # The version byte goes in front, so that the plain text is never empty, which AES-SIV refuses.
        sealed = self._cipher(purpose).encrypt(bytes((self._VERSION,)) + data, self._bound)
        return base64.urlsafe_b64encode(bytes((self._VERSION,)) + sealed).rstrip(b"=").decode("ascii")

    def unseal(self, purpose: str, text: str) -> bytes:
        """The bytes that :meth:`seal` was given.

        :raises BrokenSeal: for any other text, whatever is wrong with it.
        """
        from cryptography.exceptions import InvalidTag

        try:
            # Strict alphabet and canonical padding: one seal has one text.
            raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if raw[:1] != bytes((self._VERSION,)) or base64.urlsafe_b64encode(raw).rstrip(b"=") != text.encode("ascii"):
                raise BrokenSeal("unknown version")
            return self._cipher(purpose).decrypt(raw[1:], self._bound)[1:]
        except (InvalidTag, ValueError) as error:
            raise BrokenSeal("not a text that was sealed here") from error
