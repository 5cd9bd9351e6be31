"""Who sends a request, as the ``Convex-Client`` header names it (``http_api.md`` sections 2.3 and 2.5)."""

from __future__ import annotations

import functools
import re
from typing import Final

from convex_backend.errors import BadRequest

_SEMVER: Final = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")
_ALIASES: Final = {"python-convex": "python"}
_MAX_HEADER_BYTES: Final = 128

#: Major, minor, patch, and whether it is a release.
Version = tuple[int, int, int, bool]

#: The newest version of each client that is no longer served (``sync.md`` section 1.1).
_UNSUPPORTED: Final[dict[str, Version]] = {
    "npm": (0, 19, 1, True),
    "npm-cli": (0, 19, 1, True),
    "python": (0, 0, 2, True),
    "rust": (0, 0, 1, True),
}


class ClientTooOld(BadRequest):
    """The client is not served any more; the answer carries the deprecation headers."""


def parse_version(text: str) -> Version | None:
    """A semver text for comparing; ``None`` when it is none."""
    match = _SEMVER.fullmatch(text)
    if match is None:
        return None
    return int(match[1]), int(match[2]), int(match[3]), match[4] is None


@functools.lru_cache(maxsize=256)
def parse_client(header: bytes) -> tuple[str, str | None]:
    """``npm-cli-1.48.0`` to ``("npm-cli", "1.48.0")``: split at the first ``-`` whose rest is a version.

    :param header: the header's value; cached, since few different ones come.
    :raises BadRequest: ``InvalidClientVersion``. :raises ClientTooOld: ``ClientVersionUnsupported``.
    """
    text = header.decode("ascii", "replace")
    if len(header) <= _MAX_HEADER_BYTES:
        name, dash, version = text.partition("-")
        while dash:
            number = parse_version(version)
            if number is not None:
                name = name.lower()
                name = _ALIASES.get(name, name)
                _refuse_old(name, version, number)
                return name, version
            more, dash, version = version.partition("-")
            name = f"{name}-{more}"
    raise BadRequest("InvalidClientVersion", f"Failed to parse client version: {text[:64]}")


def _refuse_old(name: str, version: str, number: Version) -> None:
    last = _UNSUPPORTED.get(name)
    if last is not None and number <= last:
        raise ClientTooOld(
            "ClientVersionUnsupported",
            f"The Convex {name} client at version {version} is no longer supported. Update it to a newer version.",
        )
