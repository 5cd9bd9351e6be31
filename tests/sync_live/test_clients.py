"""The official clients, unmodified, through a bad network and restarts (``sync.md`` sections 1.4, 5.4 to 5.6, 6)."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import chromium
from tests.e2e.harness import ADMIN_KEY, Server, running
from tests.sync_live.bank import HERE, client_process, copy_of
from tests.sync_live.proxy import Proxy


class Steps:
    """The JSON lines of a client process, read with a time limit; lines that are not JSON are kept for the failure's text."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[Any] = []
        self._noise: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                if line.startswith("{"):
                    self._lines.append(json.loads(line))
                else:
                    self._noise.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def next(self, timeout: float = 30) -> Any:
        """The next line. :raises AssertionError: there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._ended, timeout)
            assert self._lines, f"no line: {''.join(self._noise)[-3000:]}"
            return self._lines.pop(0)

    def tell(self) -> None:
        """Let the client go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End the process if it still runs."""
        self.process.kill()
        self.process.wait(10)
        self._thread.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def proxy(bank: Server) -> Iterator[Proxy]:
    """A network to the shared server."""
    between = Proxy(bank.port)
    yield between
    between.stop()


def test_npm_client(bank_app: Path, bank: Server, proxy: Proxy) -> None:
    """ConvexClient: optimistic updates, an admin acting as a user, the network cut and stalled."""
    steps = Steps(client_process(bank_app, "npm.mjs", f"http://127.0.0.1:{proxy.port}", ADMIN_KEY))
    try:
        assert steps.next() == {"failed": {"code": "NEGATIVE", "amount": -1}}
        shown = steps.next()["shown"]
        # The hope, then what became of it; a second hope, then what was before. Equal updates are not repeated.
        assert shown == [[], ["real?"], ["real"], ["real", "never?"], ["real"]]
        assert steps.next() == {"name": "Ada", "tokenIdentifier": "https://issuer.example|ada"}
        assert steps.next() == {"ready": "cut"}
        proxy.refuse(True)
        proxy.cut_all()
        steps.tell()
        time.sleep(0.5)
        proxy.heal()
        steps.tell()
        assert steps.next() == {"shown": ["real", "offline"], "user": "Ada"}
        assert steps.next() == {"ready": "stall"}
        for link in proxy.links:
            link.stall(1)
        opened = proxy.opened
        steps.tell()
        assert steps.next() == {"rising": True}
        assert steps.next() == {"echoed": [True, True, "é", None]}
        assert proxy.opened == opened
        assert steps.process.wait(10) == 0
        tags = bank.value("query", "bank:mine", {"client": "optimist"})
        assert tags == ["real", "offline", *(f"stalled{n}" for n in range(5))]
    finally:
        steps.close()


def test_pypi_client(bank_data: Path, tmp_path: Path) -> None:
    """The PyPI client: subscribe, mutate, query, action, ConvexErrors, an admin key, and a server that is killed and started again."""
    with running(copy_of(bank_data, tmp_path)) as server:
        script = str(HERE / "clients" / "pypi.py")
        process = subprocess.Popen(
            [sys.executable, script, server.url, ADMIN_KEY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        steps = Steps(process)
        try:
            assert steps.next() == {"first": []}
            assert steps.next() == {"pushed": ["one"]}
            assert steps.next() == {"queried": ["one"]}
            assert steps.next() == {"after": 1.0, "sent": 1.0}
            assert steps.next() == {"echo": [1.5, "é", None, [0, 255], "ConvexInt64"]}
            assert [steps.next() for _ in range(3)] == [{"code": "NEGATIVE"}, {"code": "ECHO"}, {"code": "PARITY"}]
            assert "Could not find public function for 'bank:secret'" in steps.next()["refused"]
            assert steps.next() == {"secret": "for admins", "user": None}
            assert steps.next() == {"ready": "restart"}
            server.kill()
            steps.tell()
            server.start()
            assert steps.next(60) == {"restarted": ["one", "three", "two"]}
            assert process.wait(10) == 0
        finally:
            steps.close()


@pytest.mark.slow
def test_a_laptop_that_sleeps(bank_app: Path, bank: Server, proxy: Proxy) -> None:
    """A client process that is stopped for 130 s, longer than the server waits, comes back by itself and misses nothing."""
    steps = Steps(client_process(bank_app, "sleep.mjs", f"http://127.0.0.1:{proxy.port}"))
    try:
        before = steps.next()["counter"]
        steps.process.send_signal(signal.SIGSTOP)
        for number in range(10):
            args = {"client": "awake", "tag": f"awake{number}", "from": 0, "to": 1, "amount": 1}
            bank.value("mutation", "bank:transfer", args)
            time.sleep(13)
        steps.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 60
        counter = before
        while counter != before + 10:
            assert time.monotonic() < deadline
            counter = steps.next(60)["counter"]
        steps.tell()
        while "sequence" not in (line := steps.next(60)):
            pass  # updates of the counter
        assert line == {"sequence": before + 11}
    finally:
        steps.close()


@pytest.mark.skipif(
    not chromium.can_be_had(), reason="no Chromium on PATH, and none in an npm package for this machine"
)
def test_a_react_page_in_a_browser(bank_app: Path, bank: Server, tmp_path: Path) -> None:
    """A React page in headless Chromium, of another origin than the server's, shows a live query that grows by its own mutations."""
    shutil.copy(HERE / "clients" / "page.jsx", bank_app)
    steps = Steps(client_process(bank_app, "page.mjs", bank.url))
    try:
        page = steps.next()["page"]
        with chromium.showing(page, tmp_path):
            assert steps.next(60) == {"shown": ["loading", "", "browser.0", "browser.0,browser.1"]}
        assert bank.value("query", "bank:mine", {"client": "browser"}) == ["browser.0", "browser.1"]
    finally:
        steps.close()
