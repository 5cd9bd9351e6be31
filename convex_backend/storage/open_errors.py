"""What to tell an operator whose database file cannot be opened."""

from __future__ import annotations

import errno
import sqlite3

_DAMAGED = "the file is damaged, or is no database: restore a backup, or move it away to start with an empty one"
_NOT_WRITABLE = "this user may not write it, or its disk is read-only"
_NO_SPACE = "the disk has no space left: nothing is lost, make room and start again"
_DISK = "the disk is full or failing: make room, or look at the system's log; what was acknowledged is in the file"
_SQLITE_HINTS = {
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
    sqlite3.SQLITE_FULL: _NO_SPACE,
    sqlite3.SQLITE_IOERR: _DISK,
}
_SYSTEM_HINTS = {
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _NOT_WRITABLE,
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EIO: _DISK,
}


def explain(path: str, error: sqlite3.Error | OSError) -> str:
    """One line: what cannot be opened, why, and what helps."""
    hint = None
    if isinstance(error, OSError):
        cause, hint = error.strerror or str(error), _SYSTEM_HINTS.get(error.errno or 0)
    else:
        cause = str(error)
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None:
            # The low byte is the class of an extended code.
            hint = _SQLITE_HINTS.get(code & 0xFF)
    return f"cannot open the database {path}: {cause}" + (f" ({hint})" if hint else "")
