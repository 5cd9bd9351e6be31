"""File storage over a database in memory."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from convex_backend.application.file_storage import FileStorage
from convex_backend.application.sealing import Sealer
from tests.database.documents import Store

CLOUD = "http://cloud.example"


def make_files(store: Store, sealer: Sealer, blobs: Any, check_running: Any = lambda: None) -> FileStorage:
    """:param blobs: an ``IBlobStore``. The clock is that of the store."""
    return FileStorage(
        database=store.db,
        blobs=blobs,
        sealer=sealer,
        cloud_origin=lambda: CLOUD,
        check_running=check_running,
        clock=store.timers,
        now_ms=lambda: store.clock.ns // 1_000_000,
        random_bytes=store.db.random_bytes,
        registry=CollectorRegistry(),
    )
