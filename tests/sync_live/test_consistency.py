"""Under random load, a bad network and ``kill -9``, every client sees one history (``sync.md`` section 5, checklist 19 to 36)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Server
from tests.sync_live.bank import copy_of
from tests.sync_live.checker import History, whole_view
from tests.sync_live.load import NpmLoad, RawLoad, Trouble
from tests.sync_live.proxy import Proxy


def _plain(value: Any) -> str:
    """Comparable text of a value that came over HTTP, the socket or npm's decoder: 1.0 and 1 are equal."""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)


def _applied(server: Server) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {}
    cursor = None
    while True:
        page = server.value("query", "bank:history", {"paginationOpts": {"cursor": cursor, "numItems": 500}})
        for row in page["page"]:
            found.setdefault(row["tag"], []).append(None if row["seq"] is None else int(row["seq"]))
        if page["isDone"]:
            return found
        cursor = page["continueCursor"]


def _converged(server: Server, name: str, values: dict[str, Any]) -> str | None:
    """:returns: what differs from a fresh run of the client's queries, or ``None``."""
    for key, (path, args) in whole_view(name).items():
        fresh = server.value("query", path, args)
        if key not in values or _plain(values[key]) != _plain(fresh):
            return f"{name} {key}: shows {values.get(key)}, a fresh run gives {fresh}"
    return None


def _await_convergence(server: Server, raw: list[RawLoad], npm: list[NpmLoad], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        shown = {load.name: load.client.values() for load in raw}
        for process in npm:
            shown.update(process.ask("values", "all", 10))
        different = [text for name, values in shown.items() if (text := _converged(server, name, values))]
        if not different:
            return
        assert time.monotonic() < deadline, "\n".join(different)
        time.sleep(0.1)


def _run(
    app: Path, data: Path, folder: Path, *, seconds: float, raw_clients: int, npm_clients: int, kill_every: float | None
) -> str:
    """The whole story. :returns: figures, for a person who reads the output."""
    seed = time.time_ns() % 1_000_000
    history, owners = History(), {}
    server = Server(copy_of(data, folder))
    server.start()
    proxy = Proxy(server.port)
    raw: list[RawLoad] = []
    npm: list[NpmLoad] = []
    try:
        raw += [RawLoad(f"r{n}", proxy.port, history, owners, seed + n) for n in range(raw_clients)]
        npm.append(NpmLoad(app, f"http://127.0.0.1:{proxy.port}", "n", npm_clients, history, owners))
        for load in raw:
            load.start()
        trouble = Trouble(server, proxy, seed, kill_every)
        trouble.run(seconds)
        for load in raw:
            load.stopping = True
        for process in npm:
            process.ask("stop", "idle", 60)
        deadline = time.monotonic() + 30
        while waiting := [load.name for load in raw if not load.client.settled]:
            assert time.monotonic() < deadline, f"seed {seed}: {waiting} never settle"
            time.sleep(0.05)
        _await_convergence(server, raw, npm, 15)
        counter = int(server.value("query", "bank:counter"))
        history.check(_applied(server), counter, owners)
        figures = (
            f"seed {seed}: {counter} transfers, {len(history.acknowledged)} acknowledged of {len(owners)}, "
            f"{len(history.observations)} transitions checked, {proxy.opened} connections, "
            f"{trouble.events} faults of the network, {trouble.kills} kills"
        )
        assert not history.violations, f"{figures}\n" + "\n".join(history.violations[:20])
        # The story must have had something in it.
        assert counter > 10, figures
        assert all(load.client.transitions > 3 for load in raw), figures
        assert npm[0].transitions > 3 * npm_clients, figures
        assert proxy.opened > raw_clients + npm_clients
        assert "Traceback" not in server.text(), server.text()[-6000:]
        return figures
    finally:
        for load in raw:
            load.finish()
        for process in npm:
            process.finish()
        proxy.stop()
        server.kill()


def test_every_client_sees_one_history(bank_app: Path, bank_data: Path, tmp_path: Path) -> None:
    """Eight clients for ten seconds, with faults of the network and two kills of the server."""
    print(_run(bank_app, bank_data, tmp_path, seconds=10, raw_clients=5, npm_clients=3, kill_every=4))


@pytest.mark.slow
def test_every_client_sees_one_history_for_minutes(bank_app: Path, bank_data: Path, tmp_path: Path) -> None:
    """Twenty-four clients for four minutes, with a kill every 20 seconds."""
    print(_run(bank_app, bank_data, tmp_path, seconds=240, raw_clients=16, npm_clients=8, kill_every=20))


def test_every_client_sees_one_history_without_kills(bank_app: Path, bank_data: Path, tmp_path: Path) -> None:
    """A server that lives for the whole time: rounds overlap, and old sockets race with new ones."""
    print(_run(bank_app, bank_data, tmp_path, seconds=6, raw_clients=8, npm_clients=2, kill_every=None))
