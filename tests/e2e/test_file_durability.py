"""``kill -9`` at any moment: what was answered is there, what is there is whole, and nothing else is."""

from __future__ import annotations

import hashlib
import http.client
import random
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.harness import Server

WRITERS = 4


class Writer(threading.Thread):
    """Stores files and deletes some of them until the server is gone. :ivar stored: digests by id, of what was answered."""

    def __init__(self, server: Server, target: str, seed: int) -> None:
        super().__init__()
        self.server = server
        self.target = target
        self.random = random.Random(seed)
        self.stored: dict[str, str] = {}
        self.deleting: set[str] = set()

    def run(self) -> None:
        try:
            while True:
                data = self.random.randbytes(self.random.choice((0, 10, 100_000, 3_000_000)))
                connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
                connection.request("POST", self.target, data)
                answer = connection.getresponse()
                body = answer.read()
                connection.close()
                assert answer.status == 200, body
                id = body.rpartition(b':"')[2].partition(b'"')[0].decode()
                self.stored[id] = hashlib.sha256(data).hexdigest()
                if self.random.random() < 0.3:
                    self.deleting.add(id)
                    ask(self.server, "mutation", "deleteFile", {"storageId": id})
                    del self.stored[id]
                    self.deleting.discard(id)
        except (OSError, http.client.HTTPException):
            return


def ask(server: Server, kind: str, name: str, args: Any) -> Any:
    answer = server.call(kind, f"_system/frontend/fileStorageV2:{name}", args, admin=True)
    assert answer["status"] == "success", answer
    return answer["value"]


def listed(server: Server) -> dict[str, str]:
    """URL of every file by id."""
    found = {}
    options: dict[str, Any] = {"cursor": None, "numItems": 100}
    while True:
        page = ask(server, "query", "fileMetadata", {"paginationOpts": options})
        found.update({row["_id"]: row["url"] for row in page["page"]})
        if page["isDone"]:
            return found
        options["cursor"] = page["continueCursor"]


@pytest.mark.slow
def test_kills_in_the_middle_of_uploads_and_deletions(tmp_path: Path) -> None:
    """After each kill every answered upload is there with its bytes, every listed file is whole, and contents without a file go."""
    server = Server(tmp_path)
    kept: dict[str, str] = {}
    deleting: set[str] = set()
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    for turn in range(8):
        server.start()
        try:
            url = urlsplit(ask(server, "mutation", "generateUploadUrl", {}))
            writers = [Writer(server, f"{url.path}?{url.query}", seed + turn * WRITERS + n) for n in range(WRITERS)]
            for writer in writers:
                writer.start()
            time.sleep(chance.uniform(0.2, 2.0))
        finally:
            server.kill()
        for writer in writers:
            writer.join(30)
            kept.update(writer.stored)
            deleting |= writer.deleting
        server.start()
        try:
            urls = listed(server)
            assert set(kept) - deleting <= set(urls)
            for id, address in urls.items():
                path = urlsplit(address).path
                status, headers, body = server.request("GET", path)
                assert status == 200 and headers["ETag"].strip('"') == hashlib.sha256(body).hexdigest()
                if id in kept:
                    assert hashlib.sha256(body).hexdigest() == kept[id]
            root = server.folder / "convex_local_storage" / "files"
            deadline = time.monotonic() + 60
            while len(list(root.rglob("*-*"))) > len(urls) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert len(list(root.rglob("*-*"))) == len(urls)
        finally:
            server.kill()
    assert len(kept) > 8
