"""Who is at the other end of a socket, from the request target and the ``Convex-Client`` header (``sync.md`` section 1.1)."""

from __future__ import annotations

import re
from typing import Final

import attrs

from convex_backend.errors import BadRequest

_SEMVER: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_ALIASES: Final = {"python-convex": "python"}
#: Last versions that are not served any more.
_UNSUPPORTED: Final = {"npm": (0, 19, 1, True), "python": (0, 0, 2, True), "rust": (0, 0, 1, True)}
#: First npm version that understands ``TransitionChunk``.
_CHUNKS_SINCE: Final = (1, 28, 0, True)

_MAX_VERSION: Final = 64

Version = tuple[int, int, int, bool]


@attrs.frozen(slots=True)
class Client:
    """A client as it names itself.

    :param name: lower case, ``npm``, ``python``, ``rust``, … or ``unknown``.
    :param version: semver as given, or ``None``.
    """

    name: str = "unknown"
    version: str | None = None

    @property
    def number(self) -> Version | None:
        """The version for comparing: major, minor, patch, and whether it is a release."""
        return None if self.version is None else _parse_semver(self.version)

    @property
    def takes_chunks(self) -> bool:
        """Whether large Transitions may be cut (``sync.md`` section 4.5)."""
        number = self.number
        return self.name == "npm" and number is not None and number >= _CHUNKS_SINCE

    @property
    def unsupported(self) -> bool:
        """Whether the client is too old to be served."""
        number, last = self.number, _UNSUPPORTED.get(self.name)
        return number is not None and last is not None and number <= last


def _parse_semver(text: str) -> Version | None:
    # The length first: a header may hold thousands of places where a version could begin.
    match = _SEMVER.fullmatch(text) if len(text) <= _MAX_VERSION else None
    if match is None:
        return None
    return int(match[1]), int(match[2]), int(match[3]), match[4] is None


def identify(target: str, header: str | None) -> Client:
    """Who asks.

    :param target: the raw request target, ``/api/1.48.0/sync``; slashes may be doubled and a prefix may stand before it.
    :param header: the ``Convex-Client`` header; it wins over the target.
    :raises BadRequest: ``InvalidClientVersion``: a version that is not semver, or ``ClientVersionUnsupported``.
    """
    client = _from_target(target)
    if header is not None:
        client = _from_header(header)
    if client.unsupported:
        raise BadRequest(
            "ClientVersionUnsupported",
            f"The Convex {client.name} client at version {client.version} is no longer supported. "
            f"Update it to a newer version.",
        )
    return client


def _from_target(target: str) -> Client:
    segments = [segment for segment in target.partition("?")[0].split("/") if segment]
    before = segments[-2] if len(segments) > 1 else "api"
    if before == "api":
        return Client()
    if _parse_semver(before) is None:
        raise BadRequest(
            "InvalidClientVersion", f"Failed to parse client version: {before[:64]} is not a semver version."
        )
    return Client("npm", before)


def _from_header(header: str) -> Client:
    header = header.strip()
    name, dash, version = header.partition("-")
    while dash:
        if _parse_semver(version) is not None:
            name = name.lower()
            return Client(_ALIASES.get(name, name), version)
        more, dash, version = version.partition("-")
        name = f"{name}-{more}"
    raise BadRequest("InvalidClientVersion", f"Failed to parse client version: {header[:64]}")
