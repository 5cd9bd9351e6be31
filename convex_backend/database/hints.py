"""Which documents a mutation is likely to read: those whose ids its arguments name. Only ever a hint (A6)."""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from convex_backend.database.catalog import Catalog
from convex_backend.database.reads import Point
from convex_backend.values.ids import decode_id
from convex_backend.values.kinds import InvalidValue

_ID_TEXT: Final = re.compile(rb'"([0-9a-z]{31,37})"')
_HINT_BYTES: Final = 4096
_MAX_HINTS: Final = 32


def named_points(text: bytes, catalog: Catalog, component: int) -> list[Point]:
    """Point reads of the documents whose ids occur in the start of *text*, JSON of arguments.

    :returns: at most 32 points of ``by_id`` indexes, in order of appearance.
    """
    points: list[Point] = []
    for found in islice(_ID_TEXT.finditer(text, 0, _HINT_BYTES), _MAX_HINTS):
        try:
            number, internal_id = decode_id(found[1].decode())
        except InvalidValue:
            continue
        table = catalog.by_number.get((component, number))
        if table is not None:
            points.append((-table.tablet, internal_id))
    return points
