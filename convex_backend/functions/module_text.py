"""A module's text as children load it."""

from __future__ import annotations

import attrs


@attrs.frozen(slots=True)
class ModuleText:
    """One module as a child loads it. ``source`` and ``source_map`` are UTF-8 text."""

    hash: str
    path: str
    source: bytes
    source_map: bytes | None = None
