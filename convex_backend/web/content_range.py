"""Which part of a file a request asks for, and whether it has it already (RFC 9110, sections 13 and 14; ``http_api.md`` section 5)."""

from __future__ import annotations

import re
from typing import Final

import attrs

from convex_backend.errors import ConvexError

_RANGES: Final = re.compile(r"bytes\s*=\s*(.*)", re.IGNORECASE | re.DOTALL)
_RANGE: Final = re.compile(r"(\d{1,18})?-(\d{1,18})?")
_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class RangeNotSatisfiable(ConvexError):
    """The answer is 416, without a body."""

    def __init__(self) -> None:
        super().__init__("RangeNotSatisfiable", "The range asked for is not part of the file.")


@attrs.frozen(slots=True)
class Part:
    """Bytes *start* to *end*, exclusive, of a file."""

    start: int
    end: int


def parse_range(header: str | None, size: int) -> Part | None:
    """The part that a ``Range`` header asks for.

    :returns: ``None`` for the whole file: without a header, with one that cannot be understood, and for an empty file.
    :raises RangeNotSatisfiable: several parts, or one that begins at or after the end.
    """
    found = _RANGES.fullmatch(header.strip()) if header is not None else None
    if found is None:
        return None
    wanted = [text.strip() for text in found[1].split(",") if text.strip()]
    parts = [_RANGE.fullmatch(text) for text in wanted]
    if not parts or any(part is None or not _makes_sense(part) for part in parts) or size == 0:
        return None
    if len(parts) > 1 or parts[0] is None:
        raise RangeNotSatisfiable
    first, last = parts[0].groups()
    if first is None:
        part = Part(max(0, size - int(last)), size)
    else:
        part = Part(int(first), size if last is None else min(size, int(last) + 1))
    if part.start >= size or part.start >= part.end:
        raise RangeNotSatisfiable
    return part


def _makes_sense(part: re.Match[str]) -> bool:
    first, last = part.groups()
    if first is None or last is None:
        return first is not last
    return int(first) <= int(last)


def has_tag(header: str | None, tag: str) -> bool:
    """Whether an ``If-None-Match`` header names *tag* (a strong one, in quotes), or ``*``."""
    if header is None:
        return False
    return header.strip() == "*" or tag in _TAG.findall(header)
