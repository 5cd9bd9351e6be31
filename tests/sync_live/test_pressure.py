"""Slow, greedy and half-dead clients of a real server cost bounded memory, and nobody else's time (``sync.md`` 5.3, 8.2, checklist 30)."""

from __future__ import annotations

import json
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.processes import load_generator
from tests.e2e.harness import Server, running
from tests.sync_live.bank import copy_of
from tests.sync_live.frames import PING, TEXT, Ended, FrameSocket, encode
from tests.sync_live.sync_client import SyncClient

MIB = 1024 * 1024


def step_until(client: SyncClient, done: Callable[[], bool], seconds: float = 30) -> None:
    """Handle frames until *done*. :raises AssertionError: it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it never comes true"
        client.step(0.05)


@contextmanager
def connected(server: Server, **options: Any) -> Iterator[SyncClient]:
    """A client with an open socket."""
    client = SyncClient(server.port, **options)
    client.connect()
    try:
        yield client
    finally:
        client.drop()


def seconds_of_mutations(client: SyncClient, count: int, name: str) -> list[float]:
    """How long each of *count* transfers took, from the request to the Transition that covers it."""
    taken = []
    for number in range(count):
        args = {"client": name, "tag": f"{name}.{number}", "from": number % 8, "to": (number + 1) % 8, "amount": 1}
        begun = time.monotonic()
        client.mutate("bank:transfer", args, args["tag"])
        step_until(client, lambda: not client.requests)
        taken.append(time.monotonic() - begun)
    return taken


def resident_bytes(server: Server) -> int:
    """Memory of the server's own process."""
    assert server.process is not None
    return int(psutil.Process(server.process.pid).memory_info().rss)


@pytest.fixture
def own(bank_data: Path, tmp_path: Path) -> Iterator[Server]:
    """A server whose memory is this test's."""
    with running(copy_of(bank_data, tmp_path)) as server:
        yield server


def test_readers_that_stop_cost_bounded_memory_and_nobody_elses_time(own: Server) -> None:
    """Twelve clients subscribe to 400 kB each, which 60 commits change, and read nothing: 290 MB that must not pile up. Another client
    is as fast as before. When they read again they get the newest state after few Transitions."""
    with connected(own) as active:
        active.subscribe("counter", "bank:counter", {})
        seconds_of_mutations(active, 20, "warm")
        usual = statistics.median(seconds_of_mutations(active, 20, "before"))
        stopped = [SyncClient(own.port, receive_buffer=4096) for _ in range(12)]
        try:
            for client in stopped:
                client.connect()
                client.subscribe("counter", "bank:counter", {})
                client.subscribe("blob", "bank:blob", {"bytes": 400_000, "key": 0})
                step_until(client, lambda client=client: "blob" in client.values())
            seconds_of_mutations(active, 10, "fill")
            before = resident_bytes(own)
            slowed = statistics.median(seconds_of_mutations(active, 60, "during"))
            grown = resident_bytes(own) - before
            assert grown < 60 * MIB, f"{grown / MIB:.0f} MiB more"
            assert slowed < 4 * usual + 0.1, f"{slowed * 1000:.0f} ms instead of {usual * 1000:.0f} ms"
            counter = active.values()["counter"]
            for client in stopped:
                seen = client.transitions
                step_until(client, lambda client=client: client.values()["counter"] == counter)
                # What the kernel's buffers hold, then two that waited, then one with the newest state.
                assert client.transitions - seen < 40
                assert client.values()["blob"].startswith(f"{int(counter)}:0:")
        finally:
            for client in stopped:
                client.drop()


def test_a_thousand_queries_on_one_client(bank: Server) -> None:
    """One message subscribes to 1,000 queries, one Transition brings all results; a commit then brings only those it changed."""
    with connected(bank) as client:
        client.subscribe("counter", "bank:counter", {})
        step_until(client, lambda: client.settled)
        begun = time.monotonic()
        fixed = [(f"fixed:{n}", "bank:fixed", {"n": n}) for n in range(992)]
        balances = [(f"balance:{n}", "bank:balance", {"n": n}) for n in range(8)]
        ids = client.modify(fixed + balances, [])
        step_until(client, lambda: client.settled)
        taken = time.monotonic() - begun
        assert client.values()["fixed:991"] == 991
        assert taken < 20
        before = {query_id: client.results[query_id] for query_id in ids}
        seconds_of_mutations(client, 1, f"thousand{time.time_ns()}")
        changed = [query_id for query_id in ids if client.results[query_id] is not before[query_id]]
        assert {client.queries[query_id].name for query_id in changed} == {"balance:0", "balance:1"}
        client.modify([], ids)
        step_until(client, lambda: client.settled)
        assert list(client.values()) == ["counter"]


def test_a_query_set_that_changes_a_thousand_times_a_second(bank: Server) -> None:
    """A client that adds and removes a query 2,000 times in two seconds gets every version covered, by fewer Transitions; another client
    goes on meanwhile."""
    stop = threading.Event()
    taken: list[float] = []

    def neighbour() -> None:
        with connected(bank) as client:
            client.subscribe("counter", "bank:counter", {})
            number = 0
            while not stop.is_set():
                number += 1
                taken.extend(seconds_of_mutations(client, 1, f"neighbour{number}.{time.time_ns()}"))

    thread = threading.Thread(target=neighbour)
    thread.start()
    try:
        with connected(bank) as client:
            client.subscribe("counter", "bank:counter", {})
            begun = time.monotonic()
            known: list[int] = []
            for number in range(1000):
                known += client.modify([(f"fixed:{number}", "bank:fixed", {"n": number % 50})], [])
                client.modify([], [known.pop(0)])
                ahead = begun + number / 500 - time.monotonic()
                client.step(max(0.0, ahead))
            step_until(client, lambda: client.settled)
            assert time.monotonic() - begun < 15
            assert client.version["querySet"] == 2002
            assert list(client.values()) == ["counter"]
    finally:
        stop.set()
        thread.join(30)
    assert len(taken) > 5
    assert statistics.median(taken) < 1


def test_a_peer_that_only_writes(own: Server) -> None:
    """Megabytes of pings and actions whose answers nobody reads: the server stops reading, and holds little of them."""
    quiet = FrameSocket(own.port, receive_buffer=4096)
    quiet.handshake()
    with connected(own) as other:
        other.subscribe("counter", "bank:counter", {})
        seconds_of_mutations(other, 5, "before")
        before = resident_bytes(own)
        action = b'{"type":"Action","requestId":0,"udfPath":"bank:echo","args":[{"value":"%s"}]}' % (b"x" * 100_000)
        burst = encode(TEXT, action) + encode(PING, bytes(125)) * 1000
        quiet.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < 100 * MIB:
                sent += quiet.socket.send(burst)
        except TimeoutError:
            pass  # it is read no more
        assert sent < 100 * MIB
        usual = seconds_of_mutations(other, 5, "during")
        assert statistics.median(usual) < 1
        grown = resident_bytes(own) - before
        assert grown < 60 * MIB, f"{grown / MIB:.0f} MiB more"
    quiet.reset()


def test_handshakes_that_never_finish(bank: Server) -> None:
    """Three hundred connections that have sent half a request do not keep a client from being served."""
    half = b"GET /api/sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upg"
    waiting = [FrameSocket(bank.port) for _ in range(300)]
    try:
        for number, connection in enumerate(waiting):
            connection.send_raw(half[: 1 + number % len(half)])
        begun = time.monotonic()
        with connected(bank) as client:
            client.subscribe("counter", "bank:counter", {})
            step_until(client, lambda: client.settled)
        assert time.monotonic() - begun < 3
    finally:
        for connection in waiting:
            connection.close()


@pytest.mark.slow
def test_handshakes_that_never_finish_end_after_half_a_minute(bank: Server) -> None:
    """A client that sends a byte of its handshake every two seconds is closed after 30 s; a socket that is open stays."""
    half = b"GET /api/sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    slow, open_ = FrameSocket(bank.port), FrameSocket(bank.port)
    open_.handshake()
    begun = time.monotonic()
    with pytest.raises(Ended):
        for octet in half:
            slow.send_raw(bytes([octet]))
            try:
                slow.frame(2)
            except TimeoutError:
                pass  # nothing has come, and it is still connected
    assert 29 < time.monotonic() - begun < 34
    open_.send(PING, b"there")
    assert open_.frame_of(10).payload == b"there"
    slow.close()
    open_.close()


@pytest.mark.slow
def test_ten_thousand_clients_of_one_query(own: Server, tmp_path: Path) -> None:
    """Each has its socket, its session and its subscription in at most 20 kB of the server's memory, and a commit reaches all of them, in one
    Transition each, within seconds. Prints what it took."""
    clients = 10_000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < clients + 500:
        pytest.skip(f"the system allows {hard} open files")
    assert own.process is not None
    resource.prlimit(own.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with load_generator(tmp_path) as load:
            give = {"client": "crowd", "tag": "crowd", "from": 0, "to": 1, "amount": 1}
            file = load.file([json.dumps(give)])
            load("callers", name="give", port=own.port, connections=1, path="bank:transfer", args=file)
            load("subscribe", name="first", port=own.port, sockets=10, path="bank:counter")
            before = resident_bytes(own)
            opened = load("subscribe", name="crowd", port=own.port, sockets=clients, path="bank:counter", seconds=100)
            each = (resident_bytes(own) - before) / clients
            told = [load("broadcast", name="crowd", caller="give", rounds=1) for _ in range(5)]
            seconds = sorted(one["last"]["p50_ms"] / 1000 for one in told)
            answers = sorted(one["answer"]["p50_ms"] for one in told)
            print(
                f"{clients} clients: connected in {opened['connect_seconds']:.1f} s, first results in "
                f"{opened['results_seconds']:.1f} s, {each / 1000:.1f} kB each; a commit reaches the last in "
                f"{seconds[2]:.2f} s, its own answer comes in {answers[2]:.0f} ms"
            )
            assert each < 20_000
            assert seconds[2] < 5
            assert sum(one["failed"] for one in told) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


@pytest.mark.slow
def test_half_open_sockets_are_closed_after_two_minutes(bank: Server) -> None:
    """A peer that answers no ping for 120 s is closed with 1000 ``ClientDisconnected``; one that only answers pings is not."""
    silent, quiet = FrameSocket(bank.port), FrameSocket(bank.port)
    silent.handshake()
    quiet.handshake()
    begun = time.monotonic()
    frames = []
    while time.monotonic() - begun < 130:
        frame = quiet.frame_of(PING, TEXT)
        if frame.opcode == PING:
            quiet.send(10, frame.payload)
    try:
        while True:
            frames.append(silent.frame(0.1))
    except (TimeoutError, Ended):
        pass
    assert (frames[-1].close_code, frames[-1].close_reason) == (1000, "ClientDisconnected")
    assert [frame.payload for frame in frames if frame.opcode == TEXT] == [b'{"type":"Ping"}'] * 7
    silent.close()
    quiet.close()
