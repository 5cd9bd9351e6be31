"""What a large file costs on its way in and out: memory of the server's process, throughput, CPU. Memory must not grow with the file (E3).

Run it as ``python -m benchmarks.files [megabytes]``; 2048 by default. A slow reader comes last: it takes the file at a few MB/s for some seconds.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.processes import cpu_of, memory
from benchmarks.report import heading, row, target
from tests.e2e.harness import Server, running

MEGABYTE = 1 << 20
WANTED_GROWTH_MEGABYTES = 48
"""What buffers, the queue before the disk and the allocator may take."""
SLOW_SECONDS = 5.0
_PIECE = bytes(range(256)) * 4096


class Sampler:
    """The resident memory of a process, looked at ten times a second. ``peak`` in MB."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.peak = 0.0

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self.peak = max(self.peak, resident(self._pid))


def resident(pid: int) -> float:
    """Resident memory in MB."""
    return memory(pid)[0] / 1024


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """A connection to the server."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        yield connection


def admin(server: Server, kind: str, name: str, args: dict[str, object]) -> object:
    """The value of a system function about files."""
    answer = server.call(kind, f"_system/frontend/fileStorageV2:{name}", args, admin=True)
    assert answer["status"] == "success", answer
    return answer["value"]


def upload(server: Server, megabytes: int) -> tuple[str, str]:
    """Post a file. :returns: path of its URL, and the digest in hex of what was sent."""
    url = urlsplit(str(admin(server, "mutation", "generateUploadUrl", {})))
    digest = hashlib.sha256()
    with connected(server) as connection:
        head = f"POST {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {megabytes * MEGABYTE}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(megabytes):
            digest.update(_PIECE)
            connection.sendall(_PIECE)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200"), answer
    storage_id = answer.rpartition(b'"storageId":"')[2].partition(b'"')[0].decode()
    file = admin(server, "query", "getFile", {"storageId": storage_id})
    assert isinstance(file, dict)
    return urlsplit(file["url"]).path, digest.hexdigest()


def download(server: Server, path: str, seconds: float | None = None) -> tuple[int, str]:
    """Get a file; with *seconds* slowly, and for no longer. :returns: bytes of the body that came, and their digest in hex."""
    digest = hashlib.sha256()
    count = 0
    deadline = None if seconds is None else time.monotonic() + seconds
    with connected(server) as connection:
        if seconds is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        buffered = b""
        while b"\r\n\r\n" not in buffered:
            buffered += connection.recv(65536)
        data = buffered.partition(b"\r\n\r\n")[2]
        while data or (data := connection.recv(MEGABYTE)):
            digest.update(data)
            count += len(data)
            data = b""
            if deadline is not None:
                time.sleep(0.05)
                if time.monotonic() > deadline:
                    break
    return count, digest.hexdigest()


def main(megabytes: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="convex-bench-") as folder, running(Path(folder)) as server:
        assert server.process is not None
        pid = server.process.pid
        path, _ = upload(server, 8)
        download(server, path)
        before = resident(pid)
        heading(f"A file of {megabytes} MB through file storage", "rate", "Python", "peak RSS")
        row("before", "", "", f"{before:.0f} MB")
        peaks = []
        path, sent = "", ""
        for name in ("in", "out", "out, slow reader"):
            began, used = time.monotonic(), cpu_of(pid)
            with Sampler(pid) as sampler:
                if name == "in":
                    path, sent = upload(server, megabytes)
                    moved = megabytes * MEGABYTE
                elif name == "out":
                    moved, received = download(server, path)
                    assert (moved, received) == (megabytes * MEGABYTE, sent), "other bytes came back"
                else:
                    moved, _ = download(server, path, SLOW_SECONDS)
            seconds, cpu = time.monotonic() - began, cpu_of(pid) - used
            peaks.append(sampler.peak)
            rate = moved / MEGABYTE / seconds
            cost = cpu.python / (moved / MEGABYTE) * 1000
            row(name, f"{rate:.0f} MB/s", f"{cost:.2f} ms/MB", f"{sampler.peak:.0f} MB")
        growth = max(peaks) - before
        target(
            f"resident memory grew by {growth:.0f} MB (at most {WANTED_GROWTH_MEGABYTES})",
            growth <= WANTED_GROWTH_MEGABYTES,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2048)
