"""When something is on the disk."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: str | Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
