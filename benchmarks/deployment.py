"""A server with the benchmarks' app deployed by the official CLI, in a folder of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks.processes import Cpu, LoadGenerator, baseline, cpu_of, load_generator
from tests import npm_cache
from tests.e2e.harness import Server, convex

APP = Path(__file__).parent / "app"


@attrs.define(eq=False)
class Bench:
    """What a benchmark works with."""

    folder: Path
    server: Server
    load: LoadGenerator

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self.server.process is not None
        return self.server.process.pid

    @property
    def port(self) -> int:
        """Its main port."""
        return self.server.port

    def cpu(self) -> Cpu:
        """CPU time that the server used so far."""
        return cpu_of(self.pid)

    def http(self, name: str, kind: str, path: str, args: list[Any], connections: int) -> None:
        """Have the load generator ready to call a function by HTTP; ``"@N@"`` in *args* becomes a new number each time."""
        bodies = [body(path, one) for one in args]
        self.load(
            "http",
            name=name,
            port=self.port,
            connections=connections,
            path=f"/api/{kind}",
            bodies=self.load.file(bodies),
        )

    def sockets(self, name: str, path: str, args: list[Any], connections: int) -> None:
        """The same for a mutation by WebSocket."""
        file = self.load.file([text(one) for one in args])
        self.load("callers", name=name, port=self.port, connections=connections, path=path, args=file)


def text(value: Any) -> str:
    """JSON on one line; the placeholder of a number loses its quotes."""
    return json.dumps(value, separators=(",", ":")).replace('"@N@"', "@N@")


def body(path: str, args: Any) -> str:
    """The body of a call by HTTP."""
    return text({"path": path, "format": "json", "args": args})


def deploy(server: Server, folder: Path) -> None:
    """Push the app with ``convex deploy -y``."""
    app = folder / "app"
    if not app.exists():
        shutil.copytree(APP, app, ignore=shutil.ignore_patterns("_generated", "node_modules"))
        (app / "node_modules").symlink_to(npm_cache.installed() / "node_modules")
    convex(app, server, "deploy", "-y", "--typecheck", "disable")


@contextmanager
def deployed(*options: str) -> Iterator[Bench]:
    """A started server with the app, and a load generator; all gone at the end."""
    with tempfile.TemporaryDirectory(prefix="convex-backend-bench-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        server = Server(folder / "data", *options)
        server.start()
        try:
            deploy(server, folder)
            with load_generator(folder) as load:
                yield Bench(folder, server, load)
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop()


__all__ = ["APP", "Bench", "baseline", "body", "deploy", "deployed", "text"]
