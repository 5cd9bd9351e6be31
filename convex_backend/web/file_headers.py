"""The headers of an upload, checked before the first byte is kept (``http_api.md`` section 5)."""

from __future__ import annotations

import base64
import re
from typing import Final

from twisted.web.http import Request

from convex_backend.errors import BadRequest

# Possessive throughout: anybody may send such a header, and a blank that can be read in two places makes exponentially many readings.
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE: Final = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*+")'
_MEDIA_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}(?:\s*+;\s*+(?:{_TOKEN}\s*+=\s*+{_VALUE})?+)*+\s*+")
_DIGEST: Final = re.compile(r"sha-256=([A-Za-z0-9+/]{43}=)", re.IGNORECASE)


def _bad(name: str, why: str) -> BadRequest:
    return BadRequest("BadHeader", f"Bad header for {name}: {why}")


def _single(request: Request, name: bytes) -> str | None:
    values = request.requestHeaders.getRawHeaders(name)
    if values is None:
        return None
    shown = name.decode("ascii")
    if len(values) != 1:
        raise _bad(shown, "given more than once")
    try:
        return str(values[0], "ascii").strip()
    except UnicodeDecodeError:
        raise _bad(shown, "not ASCII") from None


def content_type_of(request: Request) -> str | None:
    """The ``Content-Type`` as it was sent; ``None`` without one.

    :raises BadRequest: ``BadHeader``.
    """
    value = _single(request, b"content-type")
    if not value:
        return None
    if not _MEDIA_TYPE.fullmatch(value):
        raise _bad("content-type", "invalid media type")
    return value


def digest_of(request: Request) -> str | None:
    """The base64 text of ``Digest: sha-256=…``; ``None`` without the header.

    :raises BadRequest: ``BadHeader``.
    """
    value = _single(request, b"digest")
    if value is None:
        return None
    found = _DIGEST.fullmatch(value)
    if found is None:
        raise _bad("digest", "expected sha-256=<base64 of 32 bytes>")
    # Such a text is always 32 bytes, but its last digit may have bits that belong to none of them.
    if base64.b64encode(base64.b64decode(found[1])).decode("ascii") != found[1]:
        raise _bad("digest", "not the base64 text of 32 bytes")
    return found[1]
