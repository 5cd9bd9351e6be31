"""How long a push takes on the server, and which live queries it runs again.

Run it as ``python -m benchmarks.push [subscriptions]``. The official CLI deploys an app of 200 modules through a proxy that takes the time of each
request, so what the CLI itself does (bundling, writing code) is not counted. Then so many live queries, spread evenly over the modules, watch pushes:
one that changes nothing, one that changes a single module, and one that changes a file that all modules import.
"""

from __future__ import annotations

import http.client
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs

from benchmarks.deployment import APP, Bench
from benchmarks.processes import Cpu, load_generator, reaped_seconds, settle
from benchmarks.report import heading, row, target
from tests import npm_cache
from tests.e2e.harness import Server, convex

MODULES = 200
SUBSCRIPTIONS = 10_000
UNCHANGED_PUSHES = 5
WANTED_SECONDS = 1.0
_SCHEMA = """\
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({ items: defineTable({ key: v.number(), text: v.string() }).index("by_key", ["key"]) });
"""
_MODULE = """\
import { v } from "convex/values";
import { internalMutation, mutation, query } from "./_generated/server";
import { label } from "./shared/label";

export const get = query({
  args: { n: v.number() },
  handler: async (ctx, { n }) => {
    const items = await ctx.db.query("items").withIndex("by_key", (q) => q.eq("key", n)).collect();
    return { n, label: label("NAME"), items };
  },
});
export const list = query({ args: {}, handler: async (ctx) => await ctx.db.query("items").take(10) });
export const add = mutation({
  args: { key: v.number(), text: v.string() },
  returns: v.id("items"),
  handler: async (ctx, item) => await ctx.db.insert("items", item),
});
export const clear = internalMutation({
  args: { id: v.id("items") },
  handler: async (ctx, { id }) => await ctx.db.delete(id),
});
"""
_SHARED = "export const label = (name: string) => `VERSION ${name}`;\n"
_NOT_FORWARDED = {"connection", "transfer-encoding", "content-length", "server", "date"}


class TimedProxy(ThreadingHTTPServer):
    """Passes requests on to a server. :ivar times: seconds that each took, by path, since it was cleared."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.server_port_behind = port
        self.times: dict[str, float] = {}

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Forward(BaseHTTPRequestHandler):
    server: TimedProxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.server_port_behind, timeout=120)
        began = time.perf_counter()
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = upstream.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - began
        upstream.close()
        path = self.path.partition("?")[0]
        self.server.times[path] = self.server.times.get(path, 0.0) + seconds
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _NOT_FORWARDED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@attrs.define(eq=False)
class Pushes:
    """The app, the server, and the proxy between them."""

    bench: Bench
    app: Path
    proxy: TimedProxy
    behind: Server

    def cpu(self) -> Cpu:
        """CPU time of the server so far, that of children that have ended included: a push is evaluated in one of its own."""
        now = self.bench.cpu()
        return Cpu(now.python, now.node + reaped_seconds(self.bench.pid))

    def push(self) -> tuple[dict[str, float], Cpu]:
        """Deploy. :returns: seconds by path, and CPU time of the server."""
        self.proxy.times.clear()
        before = self.cpu()
        convex(self.app, self.behind, "deploy", "-y", "--typecheck", "disable", "--codegen", "disable", timeout=300)
        return dict(self.proxy.times), self.cpu() - before

    def write(self, number: int, marker: str = "") -> None:
        """Write one module."""
        (self.app / "convex" / f"m{number}.ts").write_text(_MODULE.replace("NAME", f"m{number}{marker}"))

    def share(self, version: str) -> None:
        """Write the file that all modules import."""
        (self.app / "convex" / "shared" / "label.ts").write_text(_SHARED.replace("VERSION", version))


@contextmanager
def _many_modules() -> Iterator[Pushes]:
    with tempfile.TemporaryDirectory(prefix="convex-backend-bench-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        app = folder / "app"
        (app / "convex" / "shared").mkdir(parents=True)
        shutil.copy(APP / "package.json", app)
        (app / "node_modules").symlink_to(npm_cache.installed() / "node_modules")
        (app / "convex" / "schema.ts").write_text(_SCHEMA)
        server = Server(folder / "data")
        server.start()
        proxy = TimedProxy(server.port)
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            behind = Server(folder / "data", port=proxy.server_address[1])
            with load_generator(folder) as load:
                pushes = Pushes(Bench(folder, server, load), app, proxy, behind)
                for number in range(MODULES):
                    pushes.write(number)
                pushes.share("first")
                convex(app, server, "codegen", "--typecheck", "disable", timeout=120)
                yield pushes
        finally:
            proxy.shutdown()
            proxy.server_close()
            thread.join()
            server.stop()


def _reruns(server: Server) -> int:
    """How often subscribed queries were run again so far."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        found = re.search(rb"^convex_live_query_reruns_total (\S+)", answer.read(), re.M)
    assert found is not None
    return int(float(found[1]))


def _settled_reruns(server: Server, before: int) -> tuple[int, float]:
    """:returns: runs since *before* once there are no more, and seconds from now to the last of them."""
    began = time.monotonic()
    seen, at = _reruns(server), began
    while time.monotonic() - at < 3.0:
        time.sleep(0.1)
        now = _reruns(server)
        if now != seen:
            seen, at = now, time.monotonic()
    return seen - before, at - began


def _report_push(label: str, times: dict[str, float], used: Cpu) -> float:
    total = sum(times.values())
    parts = ", ".join(f"{path.rpartition('/')[2]} {seconds * 1000:.0f}" for path, seconds in times.items())
    row(label, f"{total * 1000:.0f}", f"{used.python * 1000:.0f}", f"{used.node * 1000:.0f}", f"  {parts}")
    return total


def _times(pushes: Pushes) -> None:
    heading(f"push of {MODULES} modules, time of its requests", "ms", "Python ms", "Node ms", "  by request, ms")
    _report_push("first", *pushes.push())
    settle()
    unchanged = [pushes.push() for _ in range(UNCHANGED_PUSHES)]
    unchanged.sort(key=lambda one: sum(one[0].values()))
    _report_push(f"unchanged, median of {UNCHANGED_PUSHES}", *unchanged[len(unchanged) // 2])
    middle = statistics.median(sum(times.values()) for times, _ in unchanged)
    pushes.write(1, " again")
    _report_push("one module changed", *pushes.push())
    target(f"unchanged: {middle:.2f} s, to be under {WANTED_SECONDS:.0f} s", middle < WANTED_SECONDS)


def _live(pushes: Pushes, subscriptions: int) -> None:
    each = subscriptions // MODULES
    load, server = pushes.bench.load, pushes.bench.server
    for number in range(MODULES):
        load(
            "subscribe",
            name=f"m{number}",
            port=server.port,
            sockets=1,
            path=f"m{number}:get",
            args='{"n":@N@}',
            each=each,
        )
    total = each * MODULES
    heading(
        f"pushes beside {total} live queries of {MODULES} modules",
        "re-runs",
        "s after",
        "push ms",
        "Python ms",
        "Node ms",
    )
    settle()
    expected = {"nothing changed": 0, "one module changed": each, "a file that all import changed": total}
    changes = {
        "nothing changed": lambda: None,
        "one module changed": lambda: pushes.write(2, " live"),
        "a file that all import changed": lambda: pushes.share("second"),
    }
    for label, change in changes.items():
        change()
        before, cpu = _reruns(server), pushes.cpu()
        times, _ = pushes.push()
        count, after = _settled_reruns(server, before)
        used = pushes.cpu() - cpu
        spent = f"{sum(times.values()) * 1000:.0f}", f"{used.python * 1000:.0f}", f"{used.node * 1000:.0f}"
        row(label, str(count), f"{after:.1f}", *spent)
        target(f"{count} live queries run again, to be {expected[label]}", count == expected[label])
    for number in range(MODULES):
        load("close", name=f"m{number}")


def main(subscriptions: int) -> None:
    """Measure and print."""
    with _many_modules() as pushes:
        _times(pushes)
        _live(pushes, subscriptions)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SUBSCRIPTIONS)
