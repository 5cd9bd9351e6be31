"""Globals as a user's functions see them: in the contexts that a real runner child makes."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import Child, Result


def words(text: str) -> list[str]:
    """Names from a block of text."""
    return text.split()


PRESENT = words("""
AbortController AbortSignal AsyncLocalStorage AsyncResource Blob CryptoKey Crypto DOMException Event EventTarget File FormData Headers
Performance PerformanceEntry PerformanceMark PerformanceMeasure ReadableStream ReadableStreamBYOBReader ReadableStreamDefaultReader
Request Response SubtleCrypto TextDecoder TextDecoderStream TextEncoder TextEncoderStream TransformStream URL URLSearchParams
WritableStream WritableStreamDefaultWriter atob btoa clearInterval clearTimeout fetch setInterval setTimeout structuredClone
""")
OBJECTS = words("crypto performance console process Convex self Atomics Intl WebAssembly")
ABSENT = words("""
queueMicrotask setImmediate clearImmediate Buffer require module exports global window navigator localStorage XMLHttpRequest WebSocket
MessageChannel BroadcastChannel CompressionStream DecompressionStream ReadableStreamDefaultController ReadableByteStreamController
WritableStreamDefaultController TransformStreamDefaultController ByteLengthQueuingStrategy CountQueuingStrategy Deno CustomEvent
""")

REGISTER = """
function register(kind, handler) {
  const name = kind[0].toUpperCase() + kind.slice(1);
  const f = () => {};
  f["is" + name] = true;
  f.isPublic = true;
  const run = async (text) => JSON.stringify((await handler(...JSON.parse(text))) ?? null);
  f["invoke" + name] = kind === "action" ? (requestId, text) => run(text) : run;
  f.exportArgs = () => '{"type":"any"}';
  f.exportReturns = () => "null";
  return f;
}
"""


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """One child for the file: each run has a context of its own."""
    with Child() as running:
        yield running


def run(child: Child, kind: str, body: str, args: Any = None, top: str = "") -> Result:
    """Run ``body`` as a handler of one argument ``a``."""
    path = "case.js"
    child.add_module(path, f"{REGISTER}{top}\nexport const f = register('{kind}', async (a) => {{ {body} }});\n")
    return child.run(kind, path, "f", [args or {}])


@pytest.mark.parametrize("kind", ["query", "action"])
def test_present_and_absent_globals(child: Child, kind: str) -> None:
    """What runtime.md 6.2 lists is there in every kind; what it lists as absent is undefined."""
    value = run(
        child,
        kind,
        "return Object.fromEntries(a.names.map((n) => [n, typeof globalThis[n]]));",
        {"names": PRESENT + OBJECTS + ABSENT},
    ).value
    assert [name for name in PRESENT if value[name] != "function"] == []
    assert [name for name in OBJECTS if value[name] != "object"] == []
    assert [name for name in ABSENT if value[name] != "undefined"] == []


def test_globals_are_own_and_not_enumerable(child: Child) -> None:
    """Feature detection by ``in`` and ``hasOwn`` works; loops over the global object do not meet them."""
    body = """
      return [Object.hasOwn(globalThis, 'URL'), 'fetch' in globalThis, Object.keys(globalThis).includes('URL'), self === globalThis];
    """
    assert run(child, "query", body).value == [True, True, False, True]


def test_random_of_a_query_is_seeded(child: Child) -> None:
    """crypto draws from the run's generator: equal seeds give equal values, and the run is marked."""
    body = "return [crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(4))]];"
    first, second = run(child, "query", body), run(child, "query", body)
    assert first.value == second.value
    assert first.meta["observed"]["random"] is True


def test_subtle_in_a_query(child: Child) -> None:
    """Deterministic algorithms work in queries, and several calls at once keep their order."""
    body = """
      const key = await crypto.subtle.importKey('raw', new TextEncoder().encode('k'), {name: 'HMAC', hash: 'SHA-256'}, false, ['sign']);
      const order = [];
      const sign = async (n) => { await crypto.subtle.sign('HMAC', key, new Uint8Array(n)); order.push(n); };
      await Promise.all([sign(3), sign(2), sign(1)]);
      const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(0)));
      return [order, digest[0], digest instanceof Uint8Array];
    """
    assert run(child, "query", body).value == [[3, 2, 1], 0xE3, True]


def test_refusals_in_a_mutation_can_be_caught(child: Child) -> None:
    """Randomness for keys and fetch reject with the text of runtime.md 6.1."""
    body = """
      const text = async (call) => { try { await call(); return 'nothing'; } catch (error) { return error.message; } };
      return [await text(() => crypto.subtle.generateKey('Ed25519', true, ['sign'])), await text(() => fetch('http://127.0.0.1/'))];
    """
    suffix = (
        "in queries and mutations. Please consider using an action. "
        "See https://docs.convex.dev/functions/actions for more details."
    )
    assert run(child, "mutation", body).value == [
        f"Can't use cryptographic randomness {suffix}",
        f"Can't use fetch() {suffix}",
    ]


def test_import_time_refusals(child: Child) -> None:
    """At import time the texts name it."""
    top = """
      let texts = [];
      const caught = fetch('http://127.0.0.1/').catch((error) => texts.push(error.message));
      const key = crypto.subtle.generateKey('Ed25519', true, ['sign']).catch((error) => texts.push(error.message));
    """
    value = run(child, "query", "await caught; await key; return texts;", top=top).value
    assert value == ["fetch() unsupported at import time", "Cannot use cryptographic randomness at import time"]


def test_unimplemented_members_end_the_run(child: Child) -> None:
    """``try`` does not stop a developer error."""
    result = run(child, "query", "try { new Request('http://h/').mode } catch {} return 1;")
    assert result.error.startswith(
        "Uncaught Error: Not implemented: get mode for Request. Consider calling an action defined in Node.js instead"
        " (https://docs.convex.dev/functions/actions)."
    )


def test_async_local_storage_across_syscalls(child: Child) -> None:
    """A store lives across the await of a syscall, for runs that interleave."""
    body = """
      const storage = new AsyncLocalStorage();
      const read = async (name) => {
        await Convex.asyncSyscall('1.0/get', JSON.stringify({id: name}));
        await null;
        return storage.getStore();
      };
      return [await Promise.all([storage.run(1, read, 'a'), storage.run(2, read, 'b')]), storage.getStore() ?? null];
    """
    child.add_module("als.js", f"{REGISTER}\nexport const f = register('query', async (a) => {{ {body} }});\n")
    result = child.run("query", "als.js", "f", [{}], answer=lambda op, args, meta: "null")
    assert result.value == [[1, 2], None]


def test_async_local_storage_across_timers(child: Child) -> None:
    """Callbacks of timers see the store of the code that set them."""
    body = """
      const storage = new AsyncLocalStorage();
      const later = () => new Promise((resolve) => setTimeout(() => resolve(storage.getStore()), 1));
      return [await storage.run('x', later), await later() ?? null];
    """
    assert run(child, "action", body).value == ["x", None]


def test_console_arguments_are_inspected(child: Child) -> None:
    """Console lines use the rendering of runtime.md 7.1."""
    result = run(child, "query", "console.log('s', {a: [1, 'x']}, new Map([[1, new URL('http://h/')]])); return null;")
    assert result.logs[0].startswith("'s' {\n  a: [ 1, 'x' ]\n} Map (1) {")


def test_dom_exceptions_are_rendered_by_their_name(child: Child) -> None:
    """An uncaught DOMException shows its own name and message."""
    result = run(child, "query", "AbortSignal.abort().throwIfAborted();")
    assert result.error.startswith("Uncaught AbortError: The operation was aborted.")


def test_abort_in_a_query_does_not_look_at_the_clock(child: Child) -> None:
    """Events have a time stamp, but an abort alone must not make a result depend on time."""
    result = run(child, "query", "const c = new AbortController(); c.abort(); return c.signal.aborted;")
    assert result.value is True
    assert result.meta["observed"]["time"] is False


def test_performance_of_a_query_stands_still(child: Child) -> None:
    """performance.now() is fixed in a query; the origin is the push."""
    body = "const first = performance.now(); for (let i = 0; i < 1e6; i++); return [performance.now() === first, performance.timeOrigin];"
    assert run(child, "query", body).value == [True, 1_600_000_000_000]


class Handler(http.server.BaseHTTPRequestHandler):
    """Echoes a POST body."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of an echo server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join(5)


def test_fetch_in_an_action(child: Child, server: str) -> None:
    """An action reaches the network, with bodies both ways."""
    body = "const r = await fetch(a.url, {method: 'POST', body: 'x'.repeat(200000)}); return [r.status, (await r.text()).length];"
    assert run(child, "action", body, {"url": server}).value == [200, 200_000]


def test_unawaited_fetch_does_not_hold_the_action(child: Child, server: str) -> None:
    """An exchange that nobody awaits is dropped when the action settles, and the child lives on."""
    assert run(child, "action", "void fetch(a.url, {method: 'POST', body: 'x'}); return 1;", {"url": server}).value == 1
    assert run(child, "action", "return 2;").value == 2
