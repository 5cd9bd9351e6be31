"""The load: clients of two kinds with random mutations and subscriptions, a bad network, and a server that dies."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.e2e.harness import Server
from tests.sync_live.bank import ACCOUNTS, client_process
from tests.sync_live.checker import History, whole_view
from tests.sync_live.frames import Ended
from tests.sync_live.proxy import Proxy
from tests.sync_live.sync_client import ProtocolError, Request, SyncClient, decode_ts

#: Queries that come and go beside the whole view; two of them are equal to others under another id.
EXTRAS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("extra:counter", "bank:counter", {}),
    ("extra:fixed", "bank:fixed", {"n": 1}),
    ("extra:fails", "bank:fails", {"when": 1}),
    ("extra:blob", "bank:blob", {"bytes": 20_000, "key": 0}),
    ("extra:balance", "bank:balance", {"n": 0}),
    ("extra:page", "bank:history", {"paginationOpts": {"cursor": None, "numItems": 5}}),
)


class RawLoad:
    """One :class:`SyncClient` in a thread of its own."""

    def __init__(self, name: str, port: int, history: History, owners: dict[str, str], seed: int) -> None:
        self.name = name
        self.client = SyncClient(port, on_transition=self._shown, on_response=self._answered)
        self.stopping = False
        self.finished = False
        self.sent = 0
        self._history = history
        self._owners = owners
        self._random = random.Random(seed)
        self._extras: dict[str, int] = {}
        self._wants_failure: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.client.modify([(key, *query) for key, query in whole_view(name).items()], [])

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """End the thread."""
        self.finished = True
        self._thread.join(10)

    def _shown(self, ts: int, values: dict[str, Any]) -> None:
        self._history.observe(self.name, ts, values)

    def _answered(self, request: Request, response: dict[str, Any]) -> None:
        fails = request.tag in self._wants_failure
        self._history.expect(self.name, response["success"] is not fails, f"{request.tag} was answered {response}")
        if response["success"]:
            seq = response["result"]
            number = int(seq) if isinstance(seq, int | float) else None
            self._history.acknowledge(self.name, request.tag, number, decode_ts(response["ts"]))

    def _run(self) -> None:
        while not self.finished:
            try:
                if not self.client.connected:
                    self.client.connect()
                while not self.finished:
                    self._act()
                    self.client.step(0.03)
            except ProtocolError as error:
                self._history.violation(self.name, f"protocol: {error}")
                self.client.drop()
            except (OSError, Ended, AssertionError):
                self.client.drop(reset=self._random.random() < 0.5)
                time.sleep(0.05 + 0.2 * self._random.random())
        self.client.drop()

    def _act(self) -> None:
        if self.stopping:
            return
        chance = self._random.random()
        if chance < 0.25 and len(self.client.requests) < 5:
            self._mutate()
        elif chance < 0.32:
            self._toggle()
        elif chance < 0.325:
            raise Ended("the application reconnects")

    def _mutate(self) -> None:
        tag = f"{self.name}.{self.sent}"
        self.sent += 1
        self._owners[tag] = self.name
        kind = self._random.random()
        if kind < 0.3:
            self.client.mutate("bank:note", {"client": self.name, "tag": tag}, tag)
            return
        giver, taker = self._random.sample(range(ACCOUNTS), 2)
        amount = self._random.randrange(20)
        if kind > 0.93:
            self._wants_failure.add(tag)
            amount = -1
        args = {"client": self.name, "tag": tag, "from": giver, "to": taker, "amount": amount}
        self.client.mutate("bank:transfer", args, tag)

    def _toggle(self) -> None:
        extra = self._random.choice(EXTRAS)
        known = self._extras.pop(extra[0], None)
        if known is None:
            self._extras[extra[0]] = self.client.subscribe(*extra)
        else:
            self.client.modify([], [known])


class NpmLoad:
    """A Node process with several unmodified clients of the npm package (``clients/load.mjs``)."""

    def __init__(self, app: Path, url: str, prefix: str, count: int, history: History, owners: dict[str, str]) -> None:
        self._history = history
        self._owners = owners
        self._prefix = prefix
        self._counters: dict[str, tuple[int, float]] = {}
        self._answers: dict[str, Any] = {}
        self._changed = threading.Condition()
        self.transitions = 0
        self.log: list[str] = []
        self.process: subprocess.Popen[str] = client_process(
            app, "load.mjs", url, prefix, str(count), str(ACCOUNTS), "120"
        )
        self._reader = threading.Thread(target=self._read, name=prefix, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.startswith("{"):
                self.log.append(line)
                continue
            message = json.loads(line)
            if "values" in message:
                self._shown(message["client"], int(message["ts"]), message["values"])
            elif "sent" in message:
                self._owners[message["sent"]] = message["client"]
            elif "done" in message:
                self._done(message)
            elif "failed" in message or "log" in message:
                self._history.violation(message.get("client", self._prefix), str(message))
            else:
                with self._changed:
                    self._answers.update(message)
                    self._changed.notify_all()

    def _shown(self, client: str, ts: int, values: dict[str, Any]) -> None:
        self.transitions += 1
        self._history.observe(client, ts, values)
        last_ts, last = self._counters.get(client, (0, 0))
        counter = values.get("counter", last)
        self._history.expect(client, ts >= last_ts, f"time went back from {last_ts} to {ts}")
        self._history.expect(client, counter >= last, f"the counter went back from {last} to {counter}")
        self._counters[client] = (ts, counter)

    def _done(self, message: dict[str, Any]) -> None:
        client, tag = message["client"], message["done"]
        seq = None if message["seq"] is None else int(message["seq"])
        self._history.acknowledge(client, tag, seq, None)
        self._history.expect(client, message["own"], f"{tag} is done, but not shown")
        if seq is not None and message.get("counter") is not None:
            self._history.expect(client, message["counter"] >= seq, f"{tag} is number {seq}: {message}")

    def ask(self, command: str, answer: str, timeout: float) -> Any:
        """Send a command. :returns: the named answer. :raises AssertionError: none came."""
        assert self.process.stdin is not None
        with self._changed:
            self._answers.pop(answer, None)
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        with self._changed:
            came = self._changed.wait_for(lambda: answer in self._answers, timeout)
            assert came, f"{self._prefix}: no {answer} in {timeout} s; {''.join(self.log)[-2000:]}"
            return self._answers[answer]

    def finish(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Trouble:
    """Cuts, stalls and half-open connections at random, and ``kill -9`` of the server at fixed times.

    :param kill_every: seconds between kills, or ``None`` for none.
    """

    def __init__(self, server: Server, proxy: Proxy, seed: int, kill_every: float | None) -> None:
        self._server = server
        self._proxy = proxy
        self._random = random.Random(seed)
        self._kill_every = kill_every
        self.kills = 0
        self.events = 0

    def run(self, seconds: float) -> None:
        """Make trouble for so long; the network works when this returns."""
        end = time.monotonic() + seconds
        next_kill = time.monotonic() + (self._kill_every or float("inf"))
        while time.monotonic() < end:
            time.sleep(0.1 + 0.3 * self._random.random())
            if time.monotonic() >= next_kill:
                self._server.kill()
                self._server.start()
                self.kills += 1
                assert self._kill_every is not None
                next_kill = time.monotonic() + self._kill_every
            elif self._proxy.links:
                self._disturb()
        self._proxy.heal()

    def _disturb(self) -> None:
        link = self._random.choice(self._proxy.links)
        self.events += 1
        kind = self._random.random()
        if kind < 0.35:
            link.cut()
        elif kind < 0.85:
            link.stall(0.1 + 1.5 * self._random.random())
        else:
            link.half_open()
