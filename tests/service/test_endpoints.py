"""Binding of the two ports, without a running reactor."""

from __future__ import annotations

import socket
from unittest import mock

import pytest
from twisted.internet.testing import MemoryReactorClock

from convex_backend.service.configuration import BadOption
from convex_backend.service.endpoints import CannotListen, TcpListener, reserve
from convex_backend.service.option_values import Listen

LOOP = "127.0.0.1"


def test_port_zero_takes_two_neighbours() -> None:
    """The site port follows the one that the kernel picked."""
    main, site = reserve(MemoryReactorClock(), Listen(0, LOOP), Listen(0, LOOP, after_main=True))
    try:
        assert site is not None
        assert main.port is not None
        assert site.port == main.port + 1
        assert main.where == f"{LOOP}:{main.port}"
    finally:
        main.close()
        assert site is not None
        site.close()


def test_a_neighbour_that_is_taken_makes_it_pick_again() -> None:
    """A picked port whose neighbour is taken is given back, and another pair is found."""
    real = TcpListener
    taken: list[int] = []

    def first_neighbour_is_taken(reactor: object, host: str, port: int) -> TcpListener:
        if port and not taken:
            taken.append(port)
            raise CannotListen("taken")
        return real(reactor, host, port)

    with mock.patch("convex_backend.service.endpoints.TcpListener", first_neighbour_is_taken):
        main, site = reserve(MemoryReactorClock(), Listen(0, LOOP), Listen(0, LOOP, after_main=True))
    main.close()
    assert site is not None
    site.close()
    assert len(taken) == 1
    # The first pick was given back.
    with socket.create_server((LOOP, taken[0] - 1)):
        pass


def test_a_taken_port_is_told_and_the_other_given_back() -> None:
    """When the site port is taken the main port is free again."""
    with socket.create_server((LOOP, 0)) as other:
        taken = other.getsockname()[1]
        with socket.create_server((LOOP, 0)) as probe:
            free = probe.getsockname()[1]
        with pytest.raises(CannotListen, match=f"port {taken} is taken by another program"):
            reserve(MemoryReactorClock(), Listen(free, LOOP), Listen(taken, LOOP))
        with socket.create_server((LOOP, free)):
            pass


def test_an_address_of_another_machine() -> None:
    """An address that this machine does not have is told as such."""
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1 is not an address of this machine"):
        reserve(MemoryReactorClock(), Listen(0, "192.0.2.1"), None)


def test_a_bad_endpoint_string() -> None:
    """A string that Twisted cannot parse is a mistake in the option."""
    with pytest.raises(BadOption, match="--port 'nonsense:1' is not a usable endpoint string"):
        reserve(MemoryReactorClock(), Listen(None, endpoint="nonsense:1"), None)
