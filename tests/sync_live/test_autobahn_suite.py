"""The Autobahn test suite's cases against the echo build of our WebSocket layer (RFC 6455, RFC 7692)."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted

from tests.sync.echo_server import echo_site
from tests.sync_live.autobahn_suite import load_cases, run_cases

#: Verdicts that pass: the suite calls some outcomes informational, because RFC 6455 leaves them open.
PASSES = ("OK", "INFORMATIONAL")


def of(*sections: str) -> dict[str, type]:
    """The cases of some sections."""
    return {name: case for name, case in load_cases().items() if name.split(".")[0] in sections}


def failed(found: dict[str, SimpleNamespace]) -> dict[str, str]:
    """What did not pass, and why."""
    return {
        name: f"{one.behavior}, close {one.close}: {one.text}"
        for name, one in found.items()
        if one.behavior not in PASSES or one.close not in PASSES
    }


@pytest.fixture
def ports() -> Iterator[list[Any]]:
    """Ports to be closed."""
    opened: list[Any] = []
    yield opened
    for port in opened:
        pytest_twisted.blockon(port.stopListening())


async def verdicts(
    ports: list[Any], cases: dict[str, type], at_once: int, **options: bool
) -> dict[str, SimpleNamespace]:
    """Run *cases* against a server of their own."""
    from twisted.internet import reactor

    site, resource = echo_site(reactor, **options)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
    ports.append(port)
    try:
        return await run_cases(reactor, port.getHost().port, cases, at_once)
    finally:
        await resource.close_all(timeout_seconds=1)


def test_the_suite_is_whole() -> None:
    """All its sections are here, with as many cases as the published list has."""
    count: dict[str, int] = {}
    for name in load_cases():
        section = name.split(".")[0]
        count[section] = count.get(section, 0) + 1
    assert count == {
        "1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126,
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_framing_pings_bits_opcodes_fragments_text_and_closing(ports: list[Any]) -> None:
    """Sections 1 to 7 and 10: every case passes in its strict form."""
    cases = of("1", "2", "3", "4", "5", "6", "7", "10")
    found = await verdicts(ports, cases, 40)
    assert len(found) == len(cases)
    assert failed(found) == {}


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_large_and_many_messages(ports: list[Any]) -> None:
    """Section 9: messages of up to 16 MiB, in up to 65,536 fragments, in chops of 64 octets, and a thousand in turn."""
    cases = of("9")
    found = await verdicts(ports, cases, 4)
    assert len(found) == len(cases)
    assert failed(found) == {}


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_compression(ports: list[Any]) -> None:
    """Sections 12 and 13: with the option for it, messages of every size are compressed and fragmented, for each kind of offer."""
    cases = of("12", "13")
    for case in cases.values():
        # A thousand round trips each say no more than forty.
        case.COUNT = 40  # type: ignore[attr-defined]
    found = await verdicts(ports, cases, 8, compression=True)
    assert len(found) == len(cases)
    assert failed(found) == {}
