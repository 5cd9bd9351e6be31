"""A fake of the table names that validators ask for."""

from __future__ import annotations

from convex_backend.values.ids import encode_id


class FakeNames:
    """``users`` 10001, ``posts`` 10002, the virtual tables, and one hidden system table."""

    TABLES = {
        10001: ("users", False),
        10002: ("posts", False),
        540: ("_storage", False),
        539: ("_scheduled_functions", False),
        521: ("_modules", True),
    }

    def table_of_number(self, number: int, /) -> tuple[str, bool] | None:
        """As the protocol says."""
        return self.TABLES.get(number)


NAMES = FakeNames()
USER_ID = encode_id(10001, bytes(16))
POST_ID = encode_id(10002, bytes(16))
MODULE_ID = encode_id(521, bytes(16))
FILE_ID = encode_id(540, bytes(16))
UNKNOWN_ID = encode_id(10099, bytes(16))
