"""From the text of an option to its value. Each function raises ``ValueError`` with what follows the option's name in the message.

Nothing here creates, opens or binds anything; directories are only looked at, so that a server that could not start says so at once.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs

from convex_backend.application.scheduler_options import Backoff

ANY_HOST: Final = "0.0.0.0"
MEMORY: Final = ":memory:"
MAX_RUNNERS: Final = 256
MAX_PARALLELISM: Final = 1024
#: As ``database/retention.py``, which is loaded later.
MIN_RETENTION_SECONDS: Final = 60.0
CONTEXT_REUSES: Final = ("off", "realm")
LOG_LEVELS: Final = ("debug", "info", "warn", "error")
_ENDPOINT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*:")
_UNESCAPED_COLON: Final = re.compile(r"(?<!\\):")
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]+)?) ?([smhd]?)")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off")


@attrs.frozen(slots=True)
class Listen:
    """Where to listen: a TCP port, or a Twisted endpoint string.

    :param port: TCP port, 0 for any free one; ``None`` exactly when there is an endpoint string.
    :param host: IP address, for :attr:`port`.
    :param endpoint: an endpoint string that is more than a TCP port; used as it is.
    :param after_main: take the port after the main one, which is not known before it is bound.
    """

    port: int | None
    host: str = ANY_HOST
    endpoint: str | None = None
    after_main: bool = False


def parse_port(text: str) -> int:
    """A TCP port, 0 included."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"must be a port number from 0 to 65535, not {text!r}")
    return int(text)


def parse_host(text: str) -> str:
    """An IP address to listen on; a name would have to be looked up, which blocks."""
    if text == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise ValueError(f"must be an IP address such as 127.0.0.1 or ::, not {text!r}") from None


def parse_listen(text: str, host: str | None) -> Listen:
    """A port number or a Twisted endpoint string, whose own syntax is checked when the endpoint is made.

    :param host: from ``--host``, if given.
    """
    if _ENDPOINT.match(text):
        if host is not None:
            raise ValueError("is an endpoint string, which has its own interface=: leave out --host")
        return _plain_tcp(text) or Listen(None, endpoint=text)
    try:
        return Listen(parse_port(text), host or ANY_HOST)
    except ValueError:
        raise ValueError(f"must be a port number from 0 to 65535 or a Twisted endpoint string, not {text!r}") from None


def _plain_tcp(endpoint: str) -> Listen | None:
    """``tcp:PORT`` and ``tcp:PORT:interface=ADDRESS``; ``None`` for all else."""
    kind, *arguments = _UNESCAPED_COLON.split(endpoint)
    if kind != "tcp":
        return None
    port, host = None, ANY_HOST
    for number, argument in enumerate(arguments):
        name, equals, value = argument.replace("\\:", ":").partition("=")
        if name == "port" and equals:
            port = parse_port(value)
        elif number == 0 and not equals:
            port = parse_port(argument)
        elif name == "interface":
            host = parse_host(value)
        else:
            return None
    if port is None:
        raise ValueError(f"must say a port, as in tcp:3210, not {endpoint!r}")
    return Listen(port, host)


def parse_origin(text: str) -> str:
    """A public URL without slash at its end."""
    bad = f"must be a URL such as https://example.com, not {text!r}"
    try:
        parts = urlsplit(text)
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(bad) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not valid_port or not text.isascii():
        raise ValueError(bad)
    if parts.query or parts.fragment or "@" in parts.netloc or any(c.isspace() or c in "?#\"'" for c in text):
        raise ValueError(f"must be a URL without user, query and fragment, not {text!r}")
    return text.rstrip("/")


def _nearest_existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def parse_persistence(text: str, base: Path) -> str:
    """The database file of ``sqlite://PATH``.

    :param base: what a relative path starts from.
    :returns: an absolute path, or ``":memory:"``.
    """
    scheme, separator, name = text.partition("://")
    if not separator or scheme != "sqlite":
        raise ValueError(f"must be sqlite://PATH, not {text!r}")
    if not name:
        raise ValueError("has no path after sqlite://")
    if name == MEMORY:
        return MEMORY
    path = Path(os.path.normpath(base / name))
    if path.is_dir():
        raise ValueError(f"names a directory: {path}")
    if not path.parent.is_dir():
        raise ValueError(f"names a file in a directory that does not exist: {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"names a place that this user may not write to: {path}")
    return str(path)


def parse_local_storage(text: str, base: Path) -> Path:
    """The directory for files and credentials; it is made at start when it does not exist."""
    if not text:
        raise ValueError("must name a directory")
    path = Path(os.path.normpath(base / text))
    existing = _nearest_existing(path)
    if not existing.is_dir():
        raise ValueError(f"must name a directory, and {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"names a place that this user may not write to: {existing}")
    return path


def parse_runners(text: str) -> int:
    """How many JavaScript processes."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_RUNNERS:
        raise ValueError(f"must be a number from 1 to {MAX_RUNNERS}, not {text!r}")
    return int(text)


def parse_parallelism(text: str) -> int:
    """How many scheduled functions run at once."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PARALLELISM:
        raise ValueError(f"must be a number from 1 to {MAX_PARALLELISM}, not {text!r}")
    return int(text)


def parse_backoff(text: str) -> Backoff:
    """The first and the longest wait in seconds, ``0.5-7200``."""
    first, _, most = text.partition("-")
    try:
        bounds = float(first), float(most)
    except ValueError:
        bounds = math.nan, math.nan
    if not 0 < bounds[0] <= bounds[1] < 1e9:
        raise ValueError(
            f"must be two numbers of seconds, the first and the longest wait, as in 0.5-7200, not {text!r}"
        )
    return Backoff(*bounds)


def parse_timeout(text: str) -> float:
    """A time in seconds, above zero."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e9:
        raise ValueError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def parse_duration(text: str) -> float:
    """A time in seconds, or in minutes, hours or days: ``90``, ``90s``, ``30m``, ``12h``, ``2d``."""
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _UNIT_SECONDS[match[2] or "s"] if match else math.nan
    if not 0 <= seconds < 1e10:
        raise ValueError(f"must be a time such as 90s, 30m, 12h or 2d, not {text!r}")
    return seconds


def parse_retention(text: str) -> float:
    """How far back reads at a timestamp reach, seconds."""
    seconds = parse_duration(text)
    if seconds < MIN_RETENTION_SECONDS:
        raise ValueError(f"must be at least {MIN_RETENTION_SECONDS:g} seconds, not {text!r}")
    return seconds


def parse_flag(text: str) -> bool:
    """A switch from the environment."""
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError(f"must be true or false, not {text!r}")


def parse_context_reuse(text: str) -> str:
    """One of :data:`CONTEXT_REUSES`."""
    mode = text.strip().lower()
    if mode not in CONTEXT_REUSES:
        raise ValueError(f"must be {' or '.join(CONTEXT_REUSES)}, not {text!r}")
    return mode


def parse_log_level(text: str) -> str:
    """One of :data:`LOG_LEVELS`."""
    level = text.strip().lower()
    if level not in LOG_LEVELS:
        raise ValueError(f"must be {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}, not {text!r}")
    return level
